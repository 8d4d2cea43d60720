package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

const (
	sendTimeout = 5 * time.Second
	// tries is how often an Event is sent to an API server that does not answer, 1 s, 2 s, 4 s, ... apart.
	tries = 6
	// flushTimeout bounds what is sent after Run's context ended.
	flushTimeout = 2 * time.Second
	sweepEvery   = 10 * time.Minute
	// maxPodName leaves room in an Event's name for what makes it unique.
	maxPodName = 220
)

// Run sends Events until ctx is done, and then, for a moment, those that wait. It returns nil.
func (r *Recorder) Run(ctx context.Context) error {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			r.flush(nil)
			return nil
		case <-ticker.C:
			r.sweep()
		case n := <-r.queue:
			if err := r.deliver(ctx, n); ctx.Err() != nil && err != nil {
				r.flush(n)
				return nil
			}
		}
	}
}

// flush sends what waits, each once.
func (r *Recorder) flush(n *note) {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	for {
		if n != nil {
			r.done(n, r.send(ctx, n))
		}
		select {
		case n = <-r.queue:
		default:
			return
		}
	}
}

// deliver sends one Event, several times if need be. An error is that of the last try.
func (r *Recorder) deliver(ctx context.Context, n *note) error {
	wait := time.Second
	for try := 1; ; try++ {
		err := r.send(ctx, n)
		if ctx.Err() != nil && err != nil {
			return err // it is sent once more
		}
		if err == nil || try == tries || !passing(err) {
			r.done(n, err)
			return err
		}
		select {
		case <-time.After(wait + rand.N(wait/5)):
		case <-ctx.Done():
			return err
		}
		wait *= 2
	}
}

// passing reports whether a repetition may help.
func passing(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return true // no answer
	}
	return status.Status().Code >= 500 || apierrors.IsTooManyRequests(err)
}

// done notes whether Events can be written. An Event on a pod whose namespace is gone is nobody's.
func (r *Recorder) done(n *note, err error) {
	if err != nil && (apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)) {
		return
	}
	r.mu.Lock()
	was, lost := r.failing, r.lost
	r.failing = err != nil
	if err != nil {
		r.lost++
	}
	r.mu.Unlock()
	switch {
	case err != nil && !was:
		args := []any{"pod", n.namespace + "/" + n.pod, "reason", n.reason, "err", bounded(err.Error(), maxMessage)}
		if apierrors.IsForbidden(err) {
			args = append(args, "remedy", "the driver's service account needs create and patch on events, which the ClusterRole "+
				"secretproviderclasses-role grants")
		}
		r.cfg.Log.Warn("Events on pods cannot be written", args...)
	case err == nil && was:
		r.cfg.Log.Info("Events on pods are written again", "lost", lost)
	}
}

// send writes one Event: a new one, or once more the one that said the same.
func (r *Recorder) send(ctx context.Context, n *note) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	events := r.client.Resource(corev1.SchemeGroupVersion.WithResource("events")).Namespace(n.namespace)
	if n.told.name != "" {
		err := repeat(ctx, events, n)
		if err == nil {
			n.told.count++
		}
		if !apierrors.IsNotFound(err) {
			return err
		}
		n.told.name = "" // Events live for an hour
	}
	name := fmt.Sprintf("%s.%016x", strings.TrimRight(n.pod[:min(len(n.pod), maxPodName)], "-."), n.id)
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(r.event(name, n))
	if err != nil {
		return err
	}
	_, err = events.Create(ctx, &unstructured.Unstructured{Object: object}, metav1.CreateOptions{})
	if err == nil || apierrors.IsAlreadyExists(err) {
		n.told.name, n.told.count = name, 1
		return nil
	}
	return err
}

func repeat(ctx context.Context, events dynamic.ResourceInterface, n *note) error {
	patch, err := json.Marshal(map[string]any{
		"count": n.told.count + 1, "lastTimestamp": n.at.UTC().Format(time.RFC3339), "message": n.message})
	if err != nil {
		return err
	}
	_, err = events.Patch(ctx, n.told.name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

func (r *Recorder) event(name string, n *note) *corev1.Event {
	return &corev1.Event{
		TypeMeta:       metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta:     metav1.ObjectMeta{Name: name, Namespace: n.namespace},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: n.namespace, Name: n.pod, UID: types.UID(n.uid)},
		Type:           n.kind, Reason: n.reason, Message: n.message, Count: 1,
		FirstTimestamp: metav1.NewTime(n.at), LastTimestamp: metav1.NewTime(n.at),
		Source:              corev1.EventSource{Component: Component, Host: r.cfg.NodeID},
		ReportingController: Component, ReportingInstance: r.cfg.NodeID,
	}
}
