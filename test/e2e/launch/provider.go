//go:build integration && linux

package launch

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"keymount/api/provider/v1alpha1"
	"keymount/test/integration/await"
)

// Provider runs a provider on the socket and returns a client of it, once it answers.
func Provider(t *testing.T, name, socket string, args ...string) (*Process, v1alpha1.CSIDriverProviderClient) {
	t.Helper()
	p := Start(t, name, append([]string{"--endpoint", "unix://" + socket}, args...)...)
	// The driver calls every provider "localhost".
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	client := v1alpha1.NewCSIDriverProviderClient(conn)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := await.For(ctx, filepath.Base(socket)+" to answer", func(ctx context.Context) error {
		if err := p.Running(); err != nil {
			return await.Never(err)
		}
		_, err := client.Version(ctx, &v1alpha1.VersionRequest{Version: "v1alpha1"})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return p, client
}
