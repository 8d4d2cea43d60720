//go:build integration && linux

package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"golang.org/x/net/dns/dnsmessage"
)

// A Server answers questions.
type Server struct {
	fixed table
	hosts string
	log   *slog.Logger
}

// New makes a server that answers from the file, and before that from fixed, by name.
func New(hosts string, fixed map[string]netip.Addr, log *slog.Logger) *Server {
	s := &Server{hosts: hosts, log: log, fixed: table{exact: map[string][]netip.Addr{}}}
	for name, address := range fixed {
		s.fixed.exact[normal(name)] = []netip.Addr{address}
	}
	return s
}

// Serve answers what comes in on the connection until ctx ends.
func (s *Server) Serve(ctx context.Context, conn net.PacketConn) error {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	buffer := make([]byte, 4096)
	for {
		n, from, err := conn.ReadFrom(buffer)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("reading DNS questions: %w", err)
		case err != nil:
			continue // an ICMP answer to an earlier one of ours
		}
		answer, err := s.answer(buffer[:n])
		if err != nil {
			s.log.Warn("answering a DNS question", "from", from.String(), "error", err)
		}
		if answer != nil {
			_, _ = conn.WriteTo(answer, from) // who asks twice is answered twice
		}
	}
}

// answer returns what to send, which is nothing when the question is none. An error goes with an answer too: the asker is
// told of a server failure, the log why.
func (s *Server) answer(request []byte) ([]byte, error) {
	var parser dnsmessage.Parser
	header, err := parser.Start(request)
	if err != nil || header.Response {
		return nil, err
	}
	reply := dnsmessage.Header{ID: header.ID, Response: true, Authoritative: true, RecursionDesired: header.RecursionDesired,
		RecursionAvailable: true, OpCode: header.OpCode}
	question, err := parser.Question()
	if err != nil {
		reply.RCode = dnsmessage.RCodeFormatError
		return pack(reply, nil, nil)
	}
	if header.OpCode != 0 {
		reply.RCode = dnsmessage.RCodeNotImplemented
		return pack(reply, &question, nil)
	}
	addresses, found, lookupErr := s.lookup(question.Name.String())
	switch {
	case lookupErr != nil:
		reply.RCode = dnsmessage.RCodeServerFailure
	case !found:
		reply.RCode = dnsmessage.RCodeNameError
	case question.Type != dnsmessage.TypeA || question.Class != dnsmessage.ClassINET:
		addresses = nil // the name exists, but has nothing of that type
	}
	message, err := pack(reply, &question, addresses)
	return message, errors.Join(lookupErr, err)
}

func (s *Server) lookup(name string) ([]netip.Addr, bool, error) {
	if addresses, found := s.fixed.lookup(name); found {
		return addresses, true, nil
	}
	hosts, err := readHosts(s.hosts)
	if err != nil {
		return nil, false, err
	}
	addresses, found := hosts.lookup(name)
	return addresses, found, nil
}

// pack makes the message. The answers live for a second, so that a changed file is soon what clients go by.
func pack(header dnsmessage.Header, question *dnsmessage.Question, addresses []netip.Addr) ([]byte, error) {
	builder := dnsmessage.NewBuilder(nil, header)
	builder.EnableCompression()
	if question == nil {
		return builder.Finish()
	}
	if err := errors.Join(builder.StartQuestions(), builder.Question(*question), builder.StartAnswers()); err != nil {
		return nil, fmt.Errorf("making a DNS answer: %w", err)
	}
	for _, address := range addresses {
		if !address.Unmap().Is4() {
			continue
		}
		resource := dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: 1}
		if err := builder.AResource(resource, dnsmessage.AResource{A: address.Unmap().As4()}); err != nil {
			return nil, fmt.Errorf("making a DNS answer: %w", err)
		}
	}
	return builder.Finish()
}
