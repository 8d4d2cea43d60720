package vault

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// What is held for others is bounded in bytes and in number; what does not fit is read again.
func TestKeptReadsAreBounded(t *testing.T) {
	for _, tc := range []struct{ size, reads, want int }{{1 << 20, 40, 32}, {33 << 20, 1, 0}, {10, maxShared + 10, maxShared}} {
		synctest.Test(t, func(t *testing.T) {
			s := newShares(time.Now, 5*time.Second)
			fetches := 0
			for range 2 {
				for i := range tc.reads {
					key := shareKey{what: object{name: fmt.Sprint(i)}}
					_, err := s.do(t.Context(), key, nil, func(_ context.Context, r *sharedRead) (any, int, error) {
						s.sending(r)
						fetches++
						return nil, tc.size, nil
					})
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			s.mu.Lock()
			if s.kept != tc.want || s.bytes != tc.want*tc.size || len(s.reads) != tc.want || fetches != 2*tc.reads-tc.want {
				t.Errorf("%d of size %d: %d of %d bytes are kept, %d in all, after %d fetches", tc.reads, tc.size, s.kept, s.bytes, len(s.reads), fetches)
			}
			s.mu.Unlock()
			time.Sleep(5*time.Second + 10*time.Millisecond)
			synctest.Wait()
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.kept != 0 || s.bytes != 0 || len(s.reads) != 0 {
				t.Errorf("%d reads of %d bytes linger, %d in all", s.kept, s.bytes, len(s.reads))
			}
		})
	}
}
