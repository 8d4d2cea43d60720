// Package registry remembers how each volume of this node last fared, in one small JSON file per volume, so that a restarted
// daemon knows what it served.
//
// It is a cache and not the truth: the mount table and ..data are (internal/volume). A record that is lost or damaged
// costs one fetch. Records never hold contents, tokens or parameters. The package imports provider for its types, and nothing else
// of the module.
//
// A Registry may be used from any number of goroutines. One process at a time may have it open: whoever opens it holds the
// Lock of the same folder.
package registry

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"keymount/internal/provider"
)

// The bounds of what is kept, far above what a node has.
const (
	MaxMessage = 1024    // bytes of a Failure's message; longer ones are cut
	maxFile    = 4 << 20 // bytes of one record; a larger one is kept without its versions
	maxRecords = 16_384
	maxName    = 4096 // bytes of a volume id or target
	format     = 1

	suffix     = ".json"
	tempPrefix = ".tmp-"
)

// A Record is what is remembered about one volume.
type Record struct {
	// Volume is the CSI volume id, which is whatever the caller said.
	Volume   string `json:"volume"`
	Target   string `json:"target"`
	Provider string `json:"provider"`
	Class    Class  `json:"class"`
	// Pod is whose volume it is, in the class's namespace.
	Pod Pod `json:"pod,omitzero"`
	// BootID and Device are those of the mount (volume.BootID, volume.Status).
	BootID string `json:"bootID,omitempty"`
	Device uint64 `json:"device,omitempty"`
	// Versions are the objects behind the content now in the volume.
	Versions []provider.ObjectVersion `json:"versions,omitempty"`
	// LastSuccess is when the content was last known to be that of the source, LastAttempt when that was last tried.
	LastSuccess time.Time `json:"lastSuccess,omitzero"`
	LastAttempt time.Time `json:"lastAttempt,omitzero"`
	// LastFailure is why the last attempt failed, nil if it did not, and Failures how many have failed in a row.
	LastFailure *Failure `json:"lastFailure,omitempty"`
	Failures    int      `json:"failures,omitempty"`
	// NextDue is when a volume that could not be refreshed is tried again, zero if the last attempt succeeded.
	NextDue time.Time `json:"nextDue,omitzero"`
	// Mark is the class's wish to be refreshed that the last success has fulfilled, "" if there was none.
	Mark string `json:"mark,omitempty"`
	// SelfWritten says that the provider wrote the content itself, so that there is no generation to see.
	SelfWritten bool `json:"selfWritten,omitempty"`
	// Secrets says that the class asked for Kubernetes Secrets at the last success.
	Secrets bool `json:"secrets,omitempty"`
}

// A Pod names a pod.
type Pod struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// A Class names a SecretProviderClass.
type Class struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// A Failure is an error as people see it.
type Failure struct {
	Kind    string `json:"kind"` // provider.Kind.String
	Message string `json:"message"`
}

// FailureOf returns err as a Failure, its message bounded; nil for nil.
func FailureOf(err error) *Failure {
	if err == nil {
		return nil
	}
	return &Failure{Kind: provider.KindOf(err).String(), Message: bound(err.Error())}
}

func bound(message string) string {
	message = strings.ToValidUTF8(message, "�")
	if len(message) <= MaxMessage {
		return message
	}
	cut := MaxMessage - len("...")
	for !utf8.RuneStart(message[cut]) {
		cut--
	}
	return message[:cut] + "..."
}

// stored is a record as its file has it.
type stored struct {
	Format int `json:"format"`
	Record
}

// A Registry is an open folder of records.
type Registry struct {
	root *os.Root // nil for one in memory
	// files is held for a change and its file together, so that the files change in the order of the records; it comes
	// before mu. mu is never held for a file: a disk that hangs must not hold up who only asks.
	files   sync.Mutex
	mu      sync.Mutex
	records map[string]Record // volume id -> record
}

// Open makes folder (0700) if it does not exist and reads every record in it. Files that are no records of this package
// (damaged, cut short, of another format or foreign) are ignored and named in warnings; Save replaces them.
func Open(folder string) (r *Registry, warnings []error, err error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, nil, fmt.Errorf("making registry: %w", err)
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, nil, fmt.Errorf("opening registry: %w", err)
	}
	r = &Registry{root: root, records: map[string]Record{}}
	if warnings, err = r.load(); err != nil {
		root.Close()
		return nil, nil, fmt.Errorf("reading registry: %w", err)
	}
	return r, warnings, nil
}

// InMemory returns a registry that outlives no process, for where there is no folder to be had: volumes are then adopted
// after a restart, at the cost of one fetch each.
func InMemory() *Registry { return &Registry{records: map[string]Record{}} }

// Close releases the folder. The registry must not be used afterwards.
func (r *Registry) Close() error {
	if r.root == nil {
		return nil
	}
	return r.root.Close()
}

func (r *Registry) load() (warnings []error, err error) {
	dir, err := r.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	const mostWarnings = 100
	for {
		names, err := dir.Readdirnames(256)
		for _, name := range names {
			if err := r.loadFile(name); err != nil && len(warnings) < mostWarnings {
				warnings = append(warnings, fmt.Errorf("ignoring %q in the registry: %w", name, err))
			}
		}
		if err == io.EOF {
			return warnings, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (r *Registry) loadFile(name string) error {
	if strings.HasPrefix(name, tempPrefix) {
		return r.root.Remove(name) // of a process that was killed while saving
	}
	if !strings.HasSuffix(name, suffix) {
		return errors.New("not a record")
	}
	if len(r.records) >= maxRecords {
		return fmt.Errorf("more than %d records", maxRecords)
	}
	info, err := r.root.Lstat(name)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return fmt.Errorf("not a regular file of at most %d bytes", maxFile)
	}
	data, err := r.root.ReadFile(name)
	if err != nil {
		return err
	}
	var s stored
	if err := json.Unmarshal(data, &s); err != nil {
		// Not the decoder's text: it can quote the file, and what is not ours may be anything.
		return errors.New("not JSON of the known form")
	}
	if s.Format != format {
		return fmt.Errorf("format %d is not %d", s.Format, format)
	}
	if s.Volume == "" || fileOf(s.Volume) != name {
		return errors.New("record of another volume")
	}
	r.records[s.Volume] = s.Record
	return nil
}

// fileOf returns the file name for a volume id, which may hold anything.
func fileOf(volume string) string {
	sum := sha256.Sum256([]byte(volume))
	return hex.EncodeToString(sum[:16]) + suffix
}

// Get returns the record of a volume. The caller must not change its Versions.
func (r *Registry) Get(volume string) (Record, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec, ok := r.records[volume]
	return rec, ok
}

// All returns every record, sorted by volume.
func (r *Registry) All() []Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.records), func(a, b Record) int { return cmp.Compare(a.Volume, b.Volume) })
}

// Save replaces the record of rec.Volume. The file is replaced by a rename, so that a kill leaves the old record or the new
// one. If the file cannot be written, this process goes by rec all the same and the error says what the next one will miss. The
// registry keeps rec.Versions, which the caller must not change.
func (r *Registry) Save(rec Record) error {
	if rec.Volume == "" || len(rec.Volume) > maxName || len(rec.Target) > maxName {
		return fmt.Errorf("saving record: volume id must have 1 to %d bytes, target at most as many", maxName)
	}
	if !utf8.ValidString(rec.Volume) {
		return errors.New("saving record: volume id is not UTF-8")
	}
	if rec.LastFailure != nil {
		rec.LastFailure = &Failure{Kind: rec.LastFailure.Kind, Message: bound(rec.LastFailure.Message)}
	}
	data, err := encode(rec)
	if err != nil {
		return fmt.Errorf("encoding record: %w", err)
	}
	r.files.Lock()
	defer r.files.Unlock()
	if err := r.set(rec); err != nil || r.root == nil {
		return err
	}
	if err := r.write(fileOf(rec.Volume), data); err != nil {
		return r.unwritten("saving", rec.Volume, err)
	}
	return nil
}

// set replaces the record in memory.
func (r *Registry) set(rec Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.records[rec.Volume]; !known && len(r.records) >= maxRecords {
		return fmt.Errorf("saving record: there are %d already", maxRecords)
	}
	r.records[rec.Volume] = rec
	return nil
}

func encode(rec Record) ([]byte, error) {
	data, err := json.Marshal(stored{format, rec})
	if err == nil && len(data) > maxFile {
		rec.Versions = nil
		data, err = json.Marshal(stored{format, rec})
	}
	return append(data, '\n'), err
}

func (r *Registry) write(name string, data []byte) (err error) {
	temp := tempPrefix + strconv.FormatUint(rand.Uint64(), 36)
	defer func() {
		if err != nil {
			r.root.Remove(temp)
		}
	}()
	f, err := r.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Close()
	} else {
		f.Close()
	}
	if err != nil {
		return err
	}
	// No fsync: a record that a power cut empties is one that Open ignores.
	err = r.root.Rename(temp, name)
	if err == nil {
		return nil
	}
	// What is no file there (a folder somebody made) is in the way. A file is the record so far, which a failure must not cost.
	if info, serr := r.root.Lstat(name); serr != nil || info.Mode().IsRegular() {
		return err
	}
	if rerr := r.root.RemoveAll(name); rerr != nil {
		return err
	}
	return r.root.Rename(temp, name)
}

// Delete forgets a volume. Unknown ones are fine.
func (r *Registry) Delete(volume string) error {
	r.files.Lock()
	defer r.files.Unlock()
	r.mu.Lock()
	delete(r.records, volume)
	r.mu.Unlock()
	if r.root == nil {
		return nil
	}
	err := r.root.Remove(fileOf(volume))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r.unwritten("deleting", volume, err)
	}
	return nil
}
