// Encrypts, decrypts, signs, verifies and reads a secret, over mTLS.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import * as grpc from "@grpc/grpc-js";
import { loadSync, type MessageTypeDefinition } from "@grpc/proto-loader";

import type { ProtoGrpcType as Crypto } from "./generated/crypto.js";
import type { ProtoGrpcType as Secrets } from "./generated/secrets.js";
import type { ErrorInfo__Output } from "./generated/google/rpc/ErrorInfo.js";
import type { Status__Output } from "./generated/google/rpc/Status.js";
import type { AccessSecretVersionResponse__Output } from "./generated/vaultd/v1/AccessSecretVersionResponse.js";
import type { DecryptResponse__Output } from "./generated/vaultd/v1/DecryptResponse.js";
import type { EncryptResponse__Output } from "./generated/vaultd/v1/EncryptResponse.js";
import type { SignResponse__Output } from "./generated/vaultd/v1/SignResponse.js";
import type { VerifyResponse__Output } from "./generated/vaultd/v1/VerifyResponse.js";

const PROTOS = fileURLToPath(new URL("../../../protos", import.meta.url));
const DEADLINE_MS = 10_000;

const definitions = loadSync(["vaultd/v1/crypto.proto", "vaultd/v1/secrets.proto", "google/rpc/error_details.proto"], {
  includeDirs: [PROTOS],
  keepCase: true,
  longs: String,
  enums: String,
  defaults: true,
  oneofs: true,
});
const { vaultd } = grpc.loadPackageDefinition(definitions) as unknown as {
  vaultd: { v1: Crypto["vaultd"]["v1"] & Secrets["vaultd"]["v1"] };
};

function env(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`set ${name}`);
  return value;
}

/** The answer of a unary call as a promise, with a deadline. */
function answer<Response>(
  start: (options: grpc.CallOptions, callback: grpc.requestCallback<Response>) => grpc.ClientUnaryCall,
): Promise<Response> {
  return new Promise((resolve, reject) => {
    start({ deadline: Date.now() + DEADLINE_MS }, (error, response) => (error ? reject(error) : resolve(response!)));
  });
}

function message<Output extends object>(name: string, bytes: Buffer): Output {
  return (definitions[name] as MessageTypeDefinition<object, Output>).deserialize(bytes);
}

/** The stable reason of a refusal: what programs branch on, where people read the text. */
function reason(error: grpc.ServiceError): string {
  const details = error.metadata.get("grpc-status-details-bin")[0] as Buffer | undefined;
  if (!details) return "";
  const status = message<Status__Output>("google.rpc.Status", details);
  const info = status.details.find((one) => one.type_url.endsWith("/google.rpc.ErrorInfo"));
  return info ? message<ErrorInfo__Output>("google.rpc.ErrorInfo", info.value as Buffer).reason : "";
}

async function main(): Promise<void> {
  const [ca, key, certificate] = ["VAULTD_CA", "VAULTD_KEY", "VAULTD_CERT"].map((name) => readFileSync(env(name)));
  const credentials = grpc.credentials.createSsl(ca, key, certificate);
  const crypto = new vaultd.v1.CryptoService(env("VAULTD_ADDR"), credentials);
  const name = env("VAULTD_ENCRYPTION_KEY");
  const signer = env("VAULTD_SIGNING_KEY");
  const plaintext = Buffer.from("4111 1111 1111 1111");
  const order = Buffer.from("order 7");

  const { ciphertext } = await answer<EncryptResponse__Output>((options, done) =>
    crypto.Encrypt({ name, plaintext, associated_data: order }, options, done),
  );
  const opened = await answer<DecryptResponse__Output>((options, done) =>
    crypto.Decrypt({ name, ciphertext, associated_data: order }, options, done),
  );
  if (!plaintext.equals(opened.plaintext)) throw new Error("decrypted to something else");
  console.log("decrypted", opened.key_version);

  try {
    await answer<DecryptResponse__Output>((options, done) =>
      crypto.Decrypt({ name, ciphertext, associated_data: Buffer.from("order 8") }, options, done),
    );
  } catch (error) {
    console.log("refused", reason(error as grpc.ServiceError));
  }

  const { signature } = await answer<SignResponse__Output>((options, done) =>
    crypto.Sign({ name: signer, message: plaintext }, options, done),
  );
  const { valid } = await answer<VerifyResponse__Output>((options, done) =>
    crypto.Verify({ name: signer, message: plaintext, signature }, options, done),
  );
  console.log("verified", valid);
  crypto.close();

  const secrets = new vaultd.v1.SecretsService(env("VAULTD_ADDR"), credentials);
  const { version, payload } = await answer<AccessSecretVersionResponse__Output>((options, done) =>
    secrets.AccessSecretVersion({ name: env("VAULTD_SECRET") }, options, done),
  );
  console.log("read", version, payload.length, "bytes");
  secrets.close();
}

await main();
