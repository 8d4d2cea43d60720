package emulator

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// AdminHandler is the control of a running emulator by HTTP and JSON, for a listener of its own: docs/emulator.md lists its paths. Every request needs the
// header "Authorization: Bearer <secret>", since other users of the machine can reach the port. An empty secret lets nobody in.
func (s *Server) AdminHandler(secret string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/requests", s.adminRequests)
	mux.HandleFunc("DELETE /v1/requests", func(w http.ResponseWriter, _ *http.Request) {
		s.ResetRequests()
		reply(w, struct{}{}, nil)
	})
	mux.HandleFunc("GET /v1/faults", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.armedFaults(), nil) })
	mux.HandleFunc("POST /v1/faults", s.adminSetFault)
	mux.HandleFunc("DELETE /v1/faults/{id}", s.adminClearFault)
	mux.HandleFunc("PUT /v1/latency/{group}", s.adminLatency)
	mux.HandleFunc("PUT /v1/vaults/{vault}/secrets/{name}", s.adminPutSecret)
	mux.HandleFunc("PUT /v1/vaults/{vault}/access", s.adminAccess)
	mux.HandleFunc("POST /v1/vaults/{vault}/{kind}/{name}/rotate", s.adminRotate)
	mux.HandleFunc("POST /v1/vaults/{vault}/{kind}/{name}/{state}", s.adminState)
	mux.HandleFunc("DELETE /v1/vaults/{vault}/{kind}/{name}", func(w http.ResponseWriter, r *http.Request) {
		reply(w, struct{}{}, s.Delete(r.PathValue("vault"), r.PathValue("kind"), r.PathValue("name")))
	})
	mux.HandleFunc("POST /v1/tokens", s.adminToken)
	want := sha256.Sum256([]byte(secret))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		have := sha256.Sum256([]byte(given))
		if secret == "" || !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(want[:], have[:]) != 1 {
			w.WriteHeader(http.StatusUnauthorized)
			reply(w, nil, fmt.Errorf("the admin secret is missing or wrong"))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		mux.ServeHTTP(w, r)
	})
}

// reply sends a value, or an error as {"error": text} with status 400 unless another was sent before.
func reply(w http.ResponseWriter, value any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		value = map[string]string{"error": err.Error()}
		w.WriteHeader(http.StatusBadRequest)
	}
	_ = json.NewEncoder(w).Encode(value) // a client that went away is not the emulator's concern
}

// read decodes a request's body and refuses members that are not there, which are typing errors.
func read(r *http.Request, into any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("reading the request: %w", err)
	}
	return nil
}

// RequestReport is the answer of GET /v1/requests.
type RequestReport struct {
	Total       int            `json:"total"`
	Counts      Counts         `json:"counts"`
	MaxInFlight map[string]int `json:"maxInFlight"`
	Log         []Entry        `json:"log,omitempty"`
}

func (s *Server) adminRequests(w http.ResponseWriter, r *http.Request) {
	counts := s.Requests()
	report := RequestReport{Total: counts.Total(), Counts: counts, MaxInFlight: map[string]int{}}
	for _, g := range groups() {
		report.MaxInFlight[g] = s.MaxInFlight(g)
	}
	if r.URL.Query().Get("log") == "true" {
		report.Log = s.Log()
	}
	reply(w, report, nil)
}

// ArmedFault is an item of the answer of GET /v1/faults.
type ArmedFault struct {
	ID    int   `json:"id"`
	Hit   int   `json:"hit"`
	Fault Fault `json:"fault"`
}

func (s *Server) armedFaults() []ArmedFault {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	all := []ArmedFault{}
	for _, f := range s.faults.armed {
		all = append(all, ArmedFault{f.id, f.hit, f.Fault})
	}
	return all
}

func (s *Server) adminSetFault(w http.ResponseWriter, r *http.Request) {
	var f Fault
	err := read(r, &f)
	id := 0
	if err == nil {
		id, err = s.SetFault(f)
	}
	reply(w, map[string]int{"id": id}, err)
}

func (s *Server) adminClearFault(w http.ResponseWriter, r *http.Request) {
	text := r.PathValue("id")
	if text == "all" {
		s.ClearFault(0)
		reply(w, struct{}{}, nil)
		return
	}
	id, err := strconv.Atoi(text)
	if err != nil || id <= 0 || !s.ClearFault(id) {
		reply(w, nil, fmt.Errorf("there is no fault %q: give the number that setting it printed, or all", text))
		return
	}
	reply(w, struct{}{}, nil)
}

func (s *Server) adminLatency(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Latency string `json:"latency"`
	}
	err := read(r, &in)
	if err == nil {
		var d time.Duration
		if d, err = time.ParseDuration(in.Latency); err == nil {
			err = s.SetLatency(r.PathValue("group"), d)
		}
	}
	reply(w, struct{}{}, err)
}

// SecretInput is the body of PUT /v1/vaults/{vault}/secrets/{name}.
type SecretInput struct {
	Value       string            `json:"value"`
	ContentType string            `json:"contentType,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
}

func (s *Server) adminPutSecret(w http.ResponseWriter, r *http.Request) {
	var in SecretInput
	if err := read(r, &in); err != nil {
		reply(w, nil, err)
		return
	}
	id, err := s.PutSecret(r.PathValue("vault"), Secret{Name: r.PathValue("name"), SecretVersion: SecretVersion{Value: in.Value, ContentType: in.ContentType, Tags: in.Tags}})
	reply(w, map[string]string{"version": id}, err)
}

func (s *Server) adminAccess(w http.ResponseWriter, r *http.Request) {
	var in []Access
	err := read(r, &in)
	if err == nil {
		err = s.SetAccess(r.PathValue("vault"), in)
	}
	reply(w, struct{}{}, err)
}

func (s *Server) adminRotate(w http.ResponseWriter, r *http.Request) {
	var id string
	var err error
	switch kind(r.PathValue("kind")) {
	case certificates:
		id, err = s.RotateCertificate(r.PathValue("vault"), r.PathValue("name"))
	case keys:
		id, err = s.RotateKey(r.PathValue("vault"), r.PathValue("name"))
	default:
		err = fmt.Errorf("only keys and certificates rotate: set a secret to a new value instead")
	}
	reply(w, map[string]string{"version": id}, err)
}

func (s *Server) adminState(w http.ResponseWriter, r *http.Request) {
	state := r.PathValue("state")
	if state != "enable" && state != "disable" {
		reply(w, nil, fmt.Errorf("unknown action %q: use enable, disable or rotate", state))
		return
	}
	reply(w, struct{}{}, s.SetEnabled(r.PathValue("vault"), r.PathValue("kind"), r.PathValue("name"), r.URL.Query().Get("version"), state == "enable"))
}

// TokenInput is the body of POST /v1/tokens. Issuer may be left out when the seed has one.
type TokenInput struct {
	Issuer         string `json:"issuer,omitempty"`
	Namespace      string `json:"namespace"`
	ServiceAccount string `json:"serviceAccount"`
	Pod            string `json:"pod,omitempty"`
	PodUID         string `json:"podUID,omitempty"`
	Audience       string `json:"audience,omitempty"` // api://AzureADTokenExchange if empty
	Lifetime       string `json:"lifetime,omitempty"` // 1h if empty
}

func (s *Server) adminToken(w http.ResponseWriter, r *http.Request) {
	var in TokenInput
	token, err := "", read(r, &in)
	if err == nil {
		token, err = s.mint(in)
	}
	reply(w, map[string]string{"token": token}, err)
}

func (s *Server) mint(in TokenInput) (string, error) {
	is, err := s.issuerFor(in.Issuer)
	if err != nil {
		return "", err
	}
	if in.Namespace == "" || in.ServiceAccount == "" {
		return "", fmt.Errorf("namespace and service account are needed")
	}
	life := time.Hour
	if in.Lifetime != "" {
		if life, err = time.ParseDuration(in.Lifetime); err != nil {
			return "", fmt.Errorf("reading the lifetime: %w", err)
		}
	}
	aud := Federated{Audience: in.Audience}.audience()
	return is.Token(ServiceAccount{Namespace: in.Namespace, Name: in.ServiceAccount, PodName: in.Pod, PodUID: in.PodUID}, []string{aud}, life)
}
