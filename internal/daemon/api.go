package daemon

import (
	"errors"
	"fmt"
	"net/http"
	"os"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/flowcontrol"
)

// What this process may ask of the API server: as much at once as a node needs that starts all its pods, of which managed
// clusters allow 250 (a first mount is one write, and kubelet waits for it), and then no more than a trickle.
const (
	requestsPerSecond = 50
	requestsAtOnce    = 250
)

// apiConfig says how to reach the API server: by a kubeconfig, else as a pod does. It connects to nobody. All clients that
// are made from it share one rate limit.
func apiConfig(kubeconfig, userAgent string, wrap func(http.RoundTripper) http.RoundTripper) (*rest.Config, error) {
	if kubeconfig == "" {
		kubeconfig = os.Getenv(clientcmd.RecommendedConfigPathEnvVar)
	}
	cfg, err := load(kubeconfig)
	if err != nil {
		return nil, err
	}
	cfg.UserAgent = userAgent
	cfg.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(requestsPerSecond, requestsAtOnce)
	cfg.Wrap(wrap)
	return cfg, nil
}

func load(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		cfg, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, errors.New("no API server is known: this is not a pod; name a file with --kubeconfig")
		}
		if err != nil {
			return nil, fmt.Errorf("reading what the pod is given to reach the API server: %w", err)
		}
		return cfg, nil
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading kubeconfig %s: %w", kubeconfig, err)
	}
	return cfg, nil
}
