package socket

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// The most connections that a server of Bound holds: those on which nothing has been asked yet or any more, and those that
// are being answered. One costs some 20 KiB, and its answer.
const (
	maxWaiting = 256
	maxBusy    = 128
)

// Bound bounds the connections of a server that answers whoever comes, before it serves: every pod of a cluster can open
// thousands, and would have the process killed for their memory. With one too many the oldest of its sort is closed, not the
// new one, so that whoever asks at once is answered in any crowd.
func Bound(server *http.Server) {
	c := &crowd{waiting: list.New(), busy: list.New(), places: map[net.Conn]place{}}
	server.ConnState = c.note
}

// A crowd is all connections of a server.
type crowd struct {
	mu            sync.Mutex
	waiting, busy *list.List // of net.Conn, the oldest first
	places        map[net.Conn]place
}

type place struct {
	in *list.List
	at *list.Element
}

func (c *crowd) note(conn net.Conn, state http.ConnState) {
	if oldest := c.move(conn, state); oldest != nil {
		oldest.Close()
	}
}

// move notes what a connection does, and returns another one that has to go, nil if there is room.
func (c *crowd) move(conn net.Conn, state http.ConnState) (oldest net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leave(conn)
	to, most := c.waiting, maxWaiting
	switch state {
	case http.StateActive:
		to, most = c.busy, maxBusy
	case http.StateHijacked, http.StateClosed:
		return nil
	}
	c.places[conn] = place{to, to.PushBack(conn)}
	if to.Len() <= most {
		return nil
	}
	oldest = to.Front().Value.(net.Conn)
	c.leave(oldest)
	return oldest
}

func (c *crowd) leave(conn net.Conn) {
	if p, ok := c.places[conn]; ok {
		p.in.Remove(p.at)
		delete(c.places, conn)
	}
}
