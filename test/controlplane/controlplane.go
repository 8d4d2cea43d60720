//go:build integration && linux

// Package controlplane is what all API servers of the tests have in common, whether they stand alone (test/integration/apiserver)
// or rule nodes (test/e2e/cluster): their authority and keys, and the arguments of etcd and kube-apiserver that do not depend on where
// they run. It starts nothing.
package controlplane

// Issuer is the issuer of service account tokens, and the audience of those that ask for none.
const Issuer = "https://kubernetes.default.svc.cluster.local"

// ServiceNet is where Services have their addresses. The first is the API server's own.
const ServiceNet = "10.96.0.0/16"

// AuditPolicy has the server write down each request when it is received and when it was answered, without bodies. It is
// the server's own record: what a client really asked, retries and watches included.
const AuditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: None
  users: ["system:apiserver"]
- level: Metadata
`

// EtcdArgs are etcd's arguments.
func EtcdArgs(dataDir, socket string) []string {
	return []string{
		"--data-dir=" + dataDir,
		"--listen-client-urls=unix://" + socket,
		"--advertise-client-urls=http://127.0.0.1:0", // nobody follows it, and a unix URL is refused
		"--listen-peer-urls=http://127.0.0.1:0",      // there are no peers; 0 lets the kernel choose
		"--unsafe-no-fsync",                          // the data does not outlive the test
		"--log-level=warn",
	}
}

// Files are the paths that kube-apiserver is given.
type Files struct {
	EtcdSocket            string
	CACert                string // of its clients
	ServerCert, ServerKey string
	TokenKey              string // signs service account tokens
	AuditPolicy, AuditLog string
}

// APIServerArgs are kube-apiserver's arguments, to which addresses and what is said of nodes are to be added.
func APIServerArgs(files Files) []string {
	return []string{
		"--etcd-servers=unix://" + files.EtcdSocket,
		"--service-cluster-ip-range=" + ServiceNet,
		"--tls-cert-file=" + files.ServerCert,
		"--tls-private-key-file=" + files.ServerKey,
		"--client-ca-file=" + files.CACert,
		"--allow-privileged=true", // as every cluster that runs CSI drivers
		"--service-account-issuer=" + Issuer,
		"--service-account-signing-key-file=" + files.TokenKey,
		"--service-account-key-file=" + files.TokenKey,
		"--audit-policy-file=" + files.AuditPolicy,
		"--audit-log-path=" + files.AuditLog,
		"--audit-log-mode=blocking",  // a request that was answered is in the file
		"--audit-log-maxsize=100000", // MB: never rotated
		"--v=1",
	}
}
