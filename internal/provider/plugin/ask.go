package plugin

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"keymount/api/provider/v1alpha1"
	"keymount/internal/socket"
)

// Ask asks what serves the endpoint what it is, on a connection of its own and once: a kept connection would go on working
// when the socket's name is gone and no driver finds the provider any more.
func Ask(ctx context.Context, at socket.Endpoint) (Info, error) {
	conn, err := grpc.NewClient("passthrough:///"+authority,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(authority),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return at.Dial(ctx) }),
		grpc.WithDisableServiceConfig(), grpc.WithNoProxy(),
	)
	if err != nil {
		return Info{}, fmt.Errorf("asking %s: %w", at, err)
	}
	defer conn.Close()
	answer, err := v1alpha1.NewCSIDriverProviderClient(conn).Version(ctx, &v1alpha1.VersionRequest{Version: APIVersion})
	if err != nil {
		st := status.Convert(err)
		return Info{}, fmt.Errorf("asking %s: %s: %s", at, st.Code(), clean(st.Message(), maxTextBytes))
	}
	return Info{clean(answer.GetRuntimeName(), maxObjectBytes), clean(answer.GetRuntimeVersion(), maxObjectBytes)}, nil
}
