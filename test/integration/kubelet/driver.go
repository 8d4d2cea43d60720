//go:build integration && linux

package kubelet

import (
	"context"
	"errors"
	"net"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// An Outcome is how kubelet takes an error (volume/util/types IsOperationFinishedError and its kin).
type Outcome string

const (
	// Final: the driver did nothing, or undid it. Of a first mount the folder is removed; nothing will be unpublished.
	Final Outcome = "final"
	// Uncertain: something may be left. The folder stays, and the volume is unpublished if its pod goes.
	Uncertain Outcome = "uncertain"
	// Transient: kubelet itself did not get as far as the driver's NodePublishVolume. Nothing changes.
	Transient Outcome = "transient"
)

// An Error is a failed step, and what kubelet makes of it. All kinds are retried.
type Error struct {
	Outcome Outcome
	Err     error // of the driver: carries the gRPC status
}

func (e *Error) Error() string { return string(e.Outcome) + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// OutcomeOf returns how kubelet took the error, "" for none. An error that is no Error is final, as to kubelet.
func OutcomeOf(err error) Outcome {
	if err == nil {
		return ""
	}
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Outcome
	}
	return Final
}

// Code returns the driver's code.
func Code(err error) codes.Code {
	if e := (*Error)(nil); errors.As(err, &e) {
		err = e.Err
	}
	return status.Code(err)
}

// judge tells final errors of the driver from those that leave things open (csi_client.go isFinalError).
func judge(err error) error {
	if err == nil {
		return nil
	}
	st, ok := status.FromError(err)
	if !ok {
		return &Error{Uncertain, err} // not the driver's: an earlier call may still be at work
	}
	switch st.Code() {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.ResourceExhausted, codes.Aborted:
		return &Error{Uncertain, err}
	}
	return &Error{Final, err}
}

// dial makes the connection that kubelet makes anew for each call and closes after it (csi_client.go newGrpcConn,
// newV1NodeClient): authority localhost, no waiting for a driver that is not there, gRPC's default message limits.
func dial(endpoint string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+endpoint,
		grpc.WithAuthority("localhost"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", address)
		}))
}

func call[Answer any](endpoint string, f func(csi.NodeClient) (Answer, error)) (Answer, error) {
	conn, err := dial(endpoint)
	if err != nil {
		var none Answer
		return none, err
	}
	defer conn.Close()
	return f(csi.NewNodeClient(conn))
}

// supports asks for the driver's abilities before each use of one (csi_client.go nodeSupportsCapability).
func (d driver) supports(ctx context.Context, ability csi.NodeServiceCapability_RPC_Type) (bool, error) {
	answer, err := call(d.endpoint, func(c csi.NodeClient) (*csi.NodeGetCapabilitiesResponse, error) {
		return c.NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{})
	})
	if err != nil {
		return false, judge(err)
	}
	for _, c := range answer.GetCapabilities() {
		if c.GetRpc() != nil && c.GetRpc().GetType() == ability {
			return true, nil
		}
	}
	return false, nil
}

// accessMode is that of every inline volume: ReadWriteOnce, whatever its readOnly (csi_mounter.go SetUpAt), put in the
// driver's terms (csi_client.go getNodeV1AccessModeMapper).
func (d driver) accessMode(ctx context.Context) (csi.VolumeCapability_AccessMode_Mode, error) {
	several, err := d.supports(ctx, csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER)
	if several {
		return csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER, err
	}
	return csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, err
}

// publish sends NodePublishVolume (csi_client.go NodePublishVolume).
func (d driver) publish(ctx context.Context, request *csi.NodePublishVolumeRequest) error {
	mode, err := d.accessMode(ctx)
	if err != nil {
		return err
	}
	request.VolumeCapability.AccessMode = &csi.VolumeCapability_AccessMode{Mode: mode}
	_, err = call(d.endpoint, func(c csi.NodeClient) (*csi.NodePublishVolumeResponse, error) {
		return c.NodePublishVolume(ctx, request)
	})
	return judge(err)
}

func (d driver) unpublish(ctx context.Context, id, target string) error {
	_, err := call(d.endpoint, func(c csi.NodeClient) (*csi.NodeUnpublishVolumeResponse, error) {
		return c.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: target})
	})
	return err
}
