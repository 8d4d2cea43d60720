package identity

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"

	"keymount/internal/provider"
)

const (
	modeWorkloadIdentity = "workload identity"
	// workloadAudience is the audience of tokens that Entra ID exchanges.
	workloadAudience = "api://AzureADTokenExchange"
)

// workloadIdentity identifies a request by its pod's service account token.
//
// A token that came from kubelet stands for its service account: all pods of that account share. A token of unknown origin
// whose claims are this pod's may turn out to be as good: Entra ID checks the signature when it exchanges the token, and
// from then on its reads are shared. Any other token of unknown origin is exchanged, since that is what its holder could do
// anyway, but it shares with nobody. A token that the node says came from kubelet and that names another pod cannot be:
// something on the way is broken or lying, so that request is refused. An expired one is not refused here, because clocks
// differ; Entra ID decides, each time anew: what it buys is nobody's but this request's, and so is what a token buys whose
// end cannot be read.
func (s *FromRequest) workloadIdentity(req *provider.Request, spec Spec) (*Credential, error) {
	const prefix = "failed to build auth config for mode None: failed to parse workload identity tokens, error: "
	const remedy = "the CSIDriver object secrets-store.csi.k8s.io must request a token for audience " + workloadAudience +
		": the chart's value tokenRequests"
	if len(req.Tokens) == 0 {
		return nil, invalid(remedy, prefix+"service account tokens not found")
	}
	token := req.Tokens[workloadAudience]
	assertion := strings.TrimSpace(token.Value.Reveal())
	if assertion == "" {
		return nil, invalid(remedy, prefix+"token for audience "+workloadAudience+" not found")
	}
	if len(assertion) > maxToken {
		return nil, invalid(remedy, fmt.Sprintf("%sthe token for audience %s is longer than %d bytes", prefix, workloadAudience, maxToken))
	}
	said, err := parseClaims(assertion)
	valid := err == nil && s.tokens.now().Before(said.expires)
	holder := heldBy(req.Pod, assertion)
	if !valid {
		holder += " " + rand.Text()
	}
	cred := &Credential{
		tokens: s.tokens,
		own:    s.keys.held(modeWorkloadIdentity, spec, spec.ClientID, holder),
		shared: s.keys.proven(modeWorkloadIdentity, spec, spec.ClientID, said),
		fetch: func(ctx context.Context) (AccessToken, error) {
			return s.entra.byAssertion(ctx, spec, provider.Sensitive(assertion), said)
		},
	}
	if s.keys.nameOnly {
		cred.shares = sharesNow
		return cred, nil
	}
	wrong := ""
	if err != nil {
		wrong = err.Error()
	} else {
		wrong = said.disagreement(req.Pod, workloadAudience)
	}
	proven := token.Proof != provider.Unproven
	switch {
	case wrong != "" && proven:
		return nil, &provider.Error{
			Kind: provider.Denied,
			Message: fmt.Sprintf("the service account token for pod %s/%s is not that pod's: %s",
				req.Pod.Namespace, req.Pod.Name, wrong),
			Remedy: "recreate the pod; if that does not help, check what else writes into this volume's attributes",
		}
	case wrong != "" || !valid:
		cred.shares = sharesNothing
	case proven:
		cred.shares = sharesNow
	default:
		cred.shares = sharesOnceAccepted
	}
	return cred, nil
}

// heldBy is what the holder of a token proves by holding it. The pod is part of it, so that a token that another pod got
// hold of buys nothing that was fetched with it before.
func heldBy(pod provider.Pod, assertion string) string {
	return fmt.Sprintf("%q %q %q %q %s", pod.Namespace, pod.Name, pod.UID, pod.ServiceAccount, assertion)
}
