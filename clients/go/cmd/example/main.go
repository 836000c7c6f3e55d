// Encrypts, decrypts, signs, verifies and reads a secret, over mTLS.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	pb "vaultd.dev/api/vaultd/v1"
)

// connect opens a channel to VAULTD_ADDR; VAULTD_CA, VAULTD_CERT and VAULTD_KEY are PEM files.
func connect() (*grpc.ClientConn, error) {
	certificate, err := tls.LoadX509KeyPair(os.Getenv("VAULTD_CERT"), os.Getenv("VAULTD_KEY"))
	if err != nil {
		return nil, err
	}
	authorities, err := os.ReadFile(os.Getenv("VAULTD_CA"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authorities) {
		return nil, errors.New("VAULTD_CA holds no certificate")
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{certificate}}
	return grpc.NewClient(os.Getenv("VAULTD_ADDR"), grpc.WithTransportCredentials(credentials.NewTLS(config)))
}

// reason gives the stable reason of a refusal: what programs branch on, where people read the text.
func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.Reason
		}
	}
	return ""
}

func run(ctx context.Context) error {
	connection, err := connect()
	if err != nil {
		return err
	}
	defer connection.Close()
	crypto := pb.NewCryptoServiceClient(connection)
	key, signer := os.Getenv("VAULTD_ENCRYPTION_KEY"), os.Getenv("VAULTD_SIGNING_KEY")

	plaintext, order := []byte("4111 1111 1111 1111"), []byte("order 7")
	sealed, err := crypto.Encrypt(ctx, &pb.EncryptRequest{Name: key, Plaintext: plaintext, AssociatedData: order})
	if err != nil {
		return err
	}
	opened, err := crypto.Decrypt(ctx, &pb.DecryptRequest{Name: key, Ciphertext: sealed.Ciphertext, AssociatedData: order})
	if err != nil {
		return err
	}
	if !bytes.Equal(opened.Plaintext, plaintext) {
		return errors.New("decrypted to something else")
	}
	fmt.Println("decrypted", opened.KeyVersion)

	_, err = crypto.Decrypt(ctx, &pb.DecryptRequest{Name: key, Ciphertext: sealed.Ciphertext, AssociatedData: []byte("order 8")})
	fmt.Println("refused", reason(err))

	signed, err := crypto.Sign(ctx, &pb.SignRequest{Name: signer, Input: &pb.SignRequest_Message{Message: plaintext}})
	if err != nil {
		return err
	}
	verified, err := crypto.Verify(ctx, &pb.VerifyRequest{
		Name: signer, Input: &pb.VerifyRequest_Message{Message: plaintext}, Signature: signed.Signature,
	})
	if err != nil {
		return err
	}
	fmt.Println("verified", verified.Valid)

	secrets := pb.NewSecretsServiceClient(connection)
	secret, err := secrets.AccessSecretVersion(ctx, &pb.AccessSecretVersionRequest{Name: os.Getenv("VAULTD_SECRET")})
	if err != nil {
		return err
	}
	fmt.Println("read", secret.Version, len(secret.Payload), "bytes")
	return nil
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
