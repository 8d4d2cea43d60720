package registry

import "testing"

// While a file of one record takes for ever, as on a disk that hangs, the records can be asked for.
func TestAskingWaitsForNoFile(t *testing.T) {
	r := InMemory()
	if err := r.Save(Record{Volume: "v", Target: "/t"}); err != nil {
		t.Fatal(err)
	}
	r.files.Lock() // as a Save holds it for as long as its file takes
	saved := make(chan error)
	go func() { saved <- r.Save(Record{Volume: "w", Target: "/u"}) }()
	if _, ok := r.Get("v"); !ok || len(r.All()) != 1 { // would wait for ever, too
		t.Errorf("got %v", r.All())
	}
	r.files.Unlock()
	if err := <-saved; err != nil || len(r.All()) != 2 {
		t.Errorf("%v, %v", err, r.All())
	}
}
