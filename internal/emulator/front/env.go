package front

// Env is the environment with which a program reaches the emulator under the real host names. NO_PROXY is emptied so that
// no host is left out, and both spellings are set, since programs differ in which one wins. Go and OpenSSL read SSL_CERT_FILE;
// curl and what is written with Python's requests (az too) or Node have variables of their own.
func Env(proxyURL, caFile string) []string {
	return []string{
		"HTTPS_PROXY=" + proxyURL, "https_proxy=" + proxyURL,
		"NO_PROXY=", "no_proxy=",
		"SSL_CERT_FILE=" + caFile, "SSL_CERT_DIR=/nonexistent",
		"CURL_CA_BUNDLE=" + caFile, "REQUESTS_CA_BUNDLE=" + caFile, "NODE_EXTRA_CA_CERTS=" + caFile,
	}
}
