package dev.vaultd.example;

import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import dev.vaultd.v1.AccessSecretVersionRequest;
import dev.vaultd.v1.CryptoServiceGrpc;
import dev.vaultd.v1.DecryptRequest;
import dev.vaultd.v1.EncryptRequest;
import dev.vaultd.v1.SecretsServiceGrpc;
import dev.vaultd.v1.SignRequest;
import dev.vaultd.v1.VerifyRequest;
import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.protobuf.StatusProto;
import java.io.File;
import java.io.IOException;
import java.util.concurrent.TimeUnit;

/** Encrypts, decrypts, signs, verifies and reads a secret, over mTLS. */
public final class Example {
  private Example() {}

  private static String env(String name) {
    String value = System.getenv(name);
    if (value == null || value.isEmpty()) {
      throw new IllegalStateException("set " + name);
    }
    return value;
  }

  /** VAULTD_CA, VAULTD_CERT and VAULTD_KEY are PEM files. */
  private static ChannelCredentials credentials() throws IOException {
    return TlsChannelCredentials.newBuilder()
        .trustManager(new File(env("VAULTD_CA")))
        .keyManager(new File(env("VAULTD_CERT")), new File(env("VAULTD_KEY")))
        .build();
  }

  /** The stable reason of a refusal: what programs branch on, where people read the text. */
  private static String reason(StatusRuntimeException refused) throws InvalidProtocolBufferException {
    com.google.rpc.Status status = StatusProto.fromThrowable(refused);
    for (com.google.protobuf.Any detail : status.getDetailsList()) {
      if (detail.is(ErrorInfo.class)) {
        return detail.unpack(ErrorInfo.class).getReason();
      }
    }
    return "";
  }

  private static void run(ManagedChannel channel) throws InvalidProtocolBufferException {
    CryptoServiceGrpc.CryptoServiceBlockingStub crypto =
        CryptoServiceGrpc.newBlockingStub(channel).withDeadlineAfter(10, TimeUnit.SECONDS);
    String key = env("VAULTD_ENCRYPTION_KEY");
    String signer = env("VAULTD_SIGNING_KEY");
    ByteString plaintext = ByteString.copyFromUtf8("4111 1111 1111 1111");
    ByteString order = ByteString.copyFromUtf8("order 7");

    ByteString ciphertext =
        crypto
            .encrypt(
                EncryptRequest.newBuilder().setName(key).setPlaintext(plaintext).setAssociatedData(order).build())
            .getCiphertext();
    DecryptRequest decrypt =
        DecryptRequest.newBuilder().setName(key).setCiphertext(ciphertext).setAssociatedData(order).build();
    var opened = crypto.decrypt(decrypt);
    if (!opened.getPlaintext().equals(plaintext)) {
      throw new IllegalStateException("decrypted to something else");
    }
    System.out.println("decrypted " + opened.getKeyVersion());

    try {
      crypto.decrypt(decrypt.toBuilder().setAssociatedData(ByteString.copyFromUtf8("order 8")).build());
    } catch (StatusRuntimeException refused) {
      System.out.println("refused " + reason(refused));
    }

    ByteString signature =
        crypto.sign(SignRequest.newBuilder().setName(signer).setMessage(plaintext).build()).getSignature();
    boolean valid =
        crypto
            .verify(VerifyRequest.newBuilder().setName(signer).setMessage(plaintext).setSignature(signature).build())
            .getValid();
    System.out.println("verified " + valid);

    var secret =
        SecretsServiceGrpc.newBlockingStub(channel)
            .withDeadlineAfter(10, TimeUnit.SECONDS)
            .accessSecretVersion(AccessSecretVersionRequest.newBuilder().setName(env("VAULTD_SECRET")).build());
    System.out.println("read " + secret.getVersion() + " " + secret.getPayload().size() + " bytes");
  }

  public static void main(String[] arguments) throws IOException {
    ManagedChannel channel = Grpc.newChannelBuilder(env("VAULTD_ADDR"), credentials()).build();
    try {
      run(channel);
    } finally {
      channel.shutdownNow();
    }
  }
}
