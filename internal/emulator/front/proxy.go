package front

import (
	"fmt"
	"net"
	"net/http"
)

// serveProxy answers CONNECT for the emulator's hosts with a tunnel that ends here. Nothing is ever forwarded to the network: a
// program under test must not reach real vaults by mistake.
func (f *Front) serveProxy(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "keyvault-emulator: this proxy only leads https:// requests to the emulator", http.StatusForbidden)
		return
	}
	host, port, err := net.SplitHostPort(r.Host)
	if err != nil || port != "443" || !f.server.Serves(host) {
		refuse(w, r.Host)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "keyvault-emulator: the connection cannot be taken over", http.StatusInternalServerError)
		return
	}
	if buffered.Reader.Buffered() > 0 {
		conn.Close() // a client speaks TLS only after the answer
		return
	}
	if _, err := conn.Write([]byte("HTTP/1.1 200 Connection established\r\n\r\n")); err != nil {
		conn.Close()
		return
	}
	if f.conns.hand(conn) != nil {
		conn.Close()
	}
}

// refuse says in the status line, which is what most clients show, that the host is not there.
func refuse(w http.ResponseWriter, host string) {
	text := fmt.Sprintf("keyvault-emulator refuses %.100q: it is not a host of the emulator (add its vault or cloud to the seed)", host)
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, text, http.StatusBadGateway)
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "HTTP/1.1 502 %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n", text, len(text)+1, text)
}
