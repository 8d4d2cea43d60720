package publish

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"keymount/internal/provider"
	"keymount/internal/volume"
)

// A Volume is one volume of one pod, and what it is to hold.
type Volume struct {
	// ID is the volume's id: what records go by.
	ID string
	// Target is where the volume is, an absolute path: what locks go by.
	Target string
	// Provider is the name of the provider, as in the class.
	Provider string
	Class    Class
	// ClassUID and ClassGeneration say which state of which object Class was when it was resolved.
	ClassUID        string
	ClassGeneration int64
	// Secrets are the Kubernetes Secrets that the class asks for, as its author wrote them. They may be shared with other volumes, so
	// nobody changes them.
	Secrets []SecretObject
	// Request is what the provider is asked. Its Mounted and TargetPath are set here, whatever they hold.
	Request provider.Request
	// Group owns the files; nil leaves the group as it is.
	Group *int
	// Once says that a volume which holds files is left as it is by every later Publish: there is no rotation.
	Once bool
	// Warnings are about what the volume asks for, for people; each result begins with them.
	Warnings []string
	// Due says when a Publish refreshes a volume that is whole.
	Due Due
	// Resolve, if set, fills in Provider, what is known of the class, Secrets, Warnings and Due, after the volume was looked at. It is not called for a volume that
	// is left as it is anyway. Its error counts as the provider's does: what the volume holds, it keeps.
	Resolve func(ctx context.Context, v *Volume) error
	// Prepare, if set, completes Request, once it is known that the provider is asked: kubelet calls for every volume about
	// once a minute, and most of them are not due. Its error counts as Resolve's does.
	Prepare func(ctx context.Context, v *Volume) error
	// Holds, if set, is called at the end of a call that leaves the volume with files, whether it succeeded or not, and before
	// the next call for the volume begins: what it books for the volume is booked before an Unpublish of it ends.
	Holds func()
}

// A Class names a SecretProviderClass.
type Class struct{ Namespace, Name string }

func (c Class) String() string { return c.Namespace + "/" + c.Name }

// A Result is what a successful call did.
type Result struct {
	// Busy says that another call has the volume, which was whole when that call began; this one did nothing.
	Busy bool
	// Fetched says that the provider was asked; if not, the volume was whole and nothing was due, and the rest is empty.
	Fetched bool
	// First says that there was nothing before.
	First bool
	// Change is what is different in the volume; empty if the files are as they were. Its Leftover is among Unfinished.
	Change volume.Change
	// Files are the volume's files by path, without their contents.
	Files []FileInfo
	// SelfWritten says that the provider wrote the files itself; Files and Change are then empty.
	SelfWritten bool
	// NewVersions says that the versions are not those of the success before, if there was one.
	NewVersions bool
	// Versions are the objects behind the files.
	Versions []provider.ObjectVersion
	// Warnings are for people: one sentence each, without secrets.
	Warnings []string
	// Unfinished is what failed after the files were in place: removing the old ones, the record, status. What became of Secrets is
	// told to a SecretObserver.
	Unfinished []error
}

// Changed says whether applications have something to take up, as far as that can be known.
func (r *Result) Changed() bool { return !r.Change.Empty() || r.SelfWritten && r.NewVersions }

// A FileInfo describes one file.
type FileInfo struct {
	Path string
	Mode fs.FileMode
	// Size is in bytes.
	Size int
	// Object is the id of what the file came from, and Version its version; "" where the provider does not tell.
	Object, Version string
}

// A StatusRecorder tells the world what a volume holds.
type StatusRecorder interface {
	// RecordStatus is called after each successful fetch, whether anything changed or not.
	RecordStatus(ctx context.Context, v *Volume, r *Result) error
	// RecordFailure is called when a volume that goes on holding its files could not be refreshed.
	RecordFailure(ctx context.Context, v *Volume, err error) error
}

// An Outcome is how one call ended.
type Outcome struct {
	Operation Operation
	// Volume is the caller's, with what Resolve and Prepare filled in, if it got that far.
	Volume *Volume
	Result Result
	// Err is an *Error, or nil.
	Err error
	// Held says that the volume held files when the call began, so that what failed or changed is a refresh's doing.
	Held bool
	// Took is how long the call was under way, waiting included.
	Took time.Duration
}

// An Observer is told of every call before it returns, from the call's goroutine, in the order in which the calls for one
// volume had their turns: it must not block for long, and not call the Publisher.
type Observer interface {
	Observe(ctx context.Context, o Outcome)
}

func describe(b *provider.Bundle) []FileInfo {
	files := make([]FileInfo, len(b.Files))
	for i, f := range b.Files {
		files[i] = FileInfo{Path: f.Path, Mode: f.Mode, Size: len(f.Contents), Object: f.Object, Version: b.VersionOf(f.Object)}
	}
	slices.SortFunc(files, func(a, b FileInfo) int { return cmp.Compare(a.Path, b.Path) })
	return files
}

// A State is what a failed call left behind.
type State int

const (
	// Undone: nothing is mounted, nothing runs; the failure is final.
	Undone State = iota
	// Kept: the volume still holds what it held.
	Kept
	// Left: something may be mounted or running; the call must be repeated, or the volume unpublished.
	Left
)

func (s State) String() string {
	switch s {
	case Undone:
		return "undone"
	case Kept:
		return "kept"
	}
	return "left"
}

// An Error is a call that failed, and what it left behind. The failures of the provider are behind it, for
// provider.ErrorsOf and provider.KindOf.
type Error struct {
	State State
	// Doing is the text before the cause's: what was being done.
	Doing string
	Cause error
}

// Error returns what was being done and why it failed. The beginnings are upstream's, where it has one: people and
// monitors look for them.
func (e *Error) Error() string { return e.Doing + e.Cause.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// An Operation is what a call is.
type Operation int

// The calls of a Publisher.
const (
	Publishing Operation = iota
	Refreshing
	Unpublishing
)

func failed(op Operation, v *Volume, state State, cause error) *Error {
	var doing string
	pod := v.Request.Pod.Namespace + "/" + v.Request.Pod.Name
	switch op {
	case Publishing:
		doing = fmt.Sprintf("failed to mount secrets store objects for pod %s, err: ", pod)
	case Refreshing:
		doing = fmt.Sprintf("refreshing the volume of pod %s: ", pod)
	case Unpublishing:
		doing = fmt.Sprintf("unmounting %s: ", v.Target)
	}
	return &Error{State: state, Doing: doing, Cause: cause}
}

// A stageError is a failure of a step of this package's own. Its type is that of upstream's metrics.
type stageError struct {
	error
	stage string
}

// The steps, as upstream's metrics have them in their label error_type.
const (
	stageMount = "FailedToEnsureMountPoint"
	stageWrite = "FileWriteError"
)

func (e stageError) Unwrap() error { return e.error }

// ErrorType is the value of the label error_type of upstream's metrics.
func (e stageError) ErrorType() string { return e.stage }

// at says in which step err came up, if it did.
func at(stage string, err error) error {
	if err == nil {
		return nil
	}
	return stageError{err, stage}
}
