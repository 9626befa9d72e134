// A peer for interoperability tests: encrypts and decrypts one layer with github.com/containers/ocicrypt, the library
// inside skopeo, buildah and containerd's stream processor. Key providers come from OCICRYPT_KEYPROVIDER_CONFIG.
//
//	ocicrypt-peer encrypt <provider> <parameters> <digest>   layer on stdin; ciphertext on stdout, annotations (JSON) on fd 3
//	ocicrypt-peer decrypt <descriptor JSON>                  ciphertext on stdin; layer on stdout
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/containers/ocicrypt"
	"github.com/containers/ocicrypt/config"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	switch {
	case len(os.Args) == 5 && os.Args[1] == "encrypt":
		return encrypt(os.Args[2], os.Args[3], digest.Digest(os.Args[4]))
	case len(os.Args) == 3 && os.Args[1] == "decrypt":
		return decrypt(os.Args[2])
	}
	return fmt.Errorf("usage: ocicrypt-peer encrypt <provider> <parameters> <digest> | decrypt <descriptor>")
}

func encrypt(provider, parameters string, layer digest.Digest) error {
	wrapping, err := config.EncryptWithKeyProvider([][]byte{[]byte(provider + ":" + parameters)})
	if err != nil {
		return err
	}
	reader, finish, err := ocicrypt.EncryptLayer(wrapping.EncryptConfig, os.Stdin, v1.Descriptor{Digest: layer})
	if err != nil {
		return err
	}
	if _, err := io.Copy(os.Stdout, reader); err != nil {
		return err
	}
	annotations, err := finish()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.NewFile(3, "annotations")).Encode(annotations)
}

func decrypt(descriptor string) error {
	var layer v1.Descriptor
	if err := json.Unmarshal([]byte(descriptor), &layer); err != nil {
		return err
	}
	unwrapping, err := config.DecryptWithKeyProvider([][]byte{[]byte("attestation-agent:null")})
	if err != nil {
		return err
	}
	reader, _, err := ocicrypt.DecryptLayer(unwrapping.DecryptConfig, os.Stdin, layer, false)
	if err != nil {
		return err
	}
	if _, err := io.Copy(os.Stdout, reader); err != nil {
		return err
	}
	return nil
}
