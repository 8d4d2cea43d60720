package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"keymount/internal/azure"
	"keymount/internal/azure/params"
	"keymount/internal/provider"
	"keymount/internal/publish"
	"keymount/internal/volume"
)

// A mounting is one run of keymount mount.
type mounting struct {
	*mountOptions
	env       Env
	class     *class
	target    string
	publisher *publish.Publisher
	close     func()
	warned    []string // the warnings that the user has seen last
}

func newMounting(o *mountOptions, env Env, class *class) (*mounting, error) {
	m := &mounting{mountOptions: o, env: env, class: class}
	var err error
	if m.target, err = filepath.Abs(o.dir); err != nil {
		return nil, fmt.Errorf("finding the folder: %w", err)
	}
	from, end, err := newProvider(string(class.Spec.Provider), o, env)
	if err != nil {
		return nil, err
	}
	if err = m.checkIdentity(); err == nil {
		err = m.checkFolder()
	}
	if err != nil {
		end()
		return nil, err
	}
	m.close = end
	m.publisher = publish.New(publish.Config{
		Provider: func(string) (provider.Provider, error) { return from, nil },
		Store:    volume.Folder{},
	})
	return m, nil
}

// parameters are those of the class, overlaid with what a pod's volume would bring and with --set.
func (m *mounting) parameters() map[string]string {
	p := maps.Clone(m.class.Spec.Parameters)
	if p == nil {
		p = map[string]string{}
	}
	p["secretProviderClass"] = m.class.Name
	p["csi.storage.k8s.io/ephemeral"] = "true"
	for _, s := range m.set {
		key, value, _ := strings.Cut(s, "=")
		p[key] = value
	}
	return p
}

// checkFolder finds out early that an existing folder cannot be used, and makes it private if it can.
func (m *mounting) checkFolder() error {
	if _, err := os.Lstat(m.target); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return volume.Folder{}.Mount(m.target)
}

// checkIdentity finds out early that the class needs credentials which were not given: the provider could only say that
// a pod lacks them. What is given, but of no use to the class, is not handed over.
func (m *mounting) checkIdentity() error {
	if m.socket != "" || m.class.Spec.Provider != azure.Name || m.identity.mode != identityManifest {
		return nil
	}
	spec, err := params.Parse(m.parameters(), params.Options{})
	if err != nil {
		return nil // the provider says so, better
	}
	id := &m.identity
	secret, token := false, false
	switch spec.Mode {
	case params.ServicePrincipal:
		secret = true
	case params.WorkloadIdentity, params.IdentityBinding:
		token = true
	}
	const or = `; or ask as yourself: --identity default, after "az login"`
	switch {
	case secret && id.clientID == "" && id.secretFile == "" && id.secretEnv == "":
		return &usageError{"the class uses a service principal, whose client id and secret are not given",
			"set AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or give --client-id and --client-secret-file" + or}
	case secret && id.clientID == "":
		return &usageError{"the class uses a service principal, whose client id is not given", "set AZURE_CLIENT_ID, or give --client-id" + or}
	case secret && id.secretFile == "" && id.secretEnv == "":
		return &usageError{"the class uses a service principal, whose client secret is not given", "set AZURE_CLIENT_SECRET, or give --client-secret-file" + or}
	case token && id.tokenFile == "":
		return &usageError{"the class uses " + spec.Mode.String() + ", and no service account token is given",
			"give --token-file or AZURE_FEDERATED_TOKEN_FILE" + or}
	}
	if !secret {
		id.secretFile, id.secretEnv = "", ""
	}
	if !token {
		id.tokenFile = ""
	}
	return nil
}

// volume is the folder as a volume. Credentials are read anew each time: they may have been rotated.
func (m *mounting) volume() (publish.Volume, error) {
	req := provider.Request{
		Pod: provider.Pod{Namespace: m.class.Namespace, Name: "keymount", ServiceAccount: "default",
			UID: "00000000-0000-0000-0000-000000000000"},
		Parameters:  m.parameters(),
		DefaultMode: 0o644,
	}
	if err := m.identity.apply(&req); err != nil {
		return publish.Volume{}, err
	}
	return publish.Volume{ID: m.target, Target: m.target, Provider: string(m.class.Spec.Provider),
		Class: publish.Class{Namespace: m.class.Namespace, Name: m.class.Name}, Request: req}, nil
}

// call runs Publish or Refresh, saying on a terminal that it does.
func (m *mounting) call(ctx context.Context, what string,
	do func(*publish.Publisher, context.Context, publish.Volume) (publish.Result, error)) (publish.Result, error) {
	v, err := m.volume()
	if err != nil {
		return publish.Result{}, err
	}
	stop := showProgress(m.env.Err, fmt.Sprintf("%s class %s with provider %s", what, v.Class, v.Provider), publish.DefaultDeadline)
	defer stop()
	return do(m.publisher, ctx, v)
}

// first fills the folder and prints what it holds.
func (m *mounting) first(ctx context.Context) error {
	m.warn(m.class.warnings)
	res, err := m.call(ctx, "reading", (*publish.Publisher).Publish)
	if err != nil {
		if ctx.Err() != nil {
			fmt.Fprintln(m.env.Err, "keymount: interrupted")
			return &reported{ExitInterrupted}
		}
		if perr := m.printFailure(err); perr != nil {
			return perr
		}
		return &reported{exitCode(ctx, err)}
	}
	m.warnResult(&res)
	e := eventOf("mounted", m.target, &res)
	if m.output == "json" && !res.SelfWritten {
		return e.writeJSON(m.env.Out)
	}
	if res.SelfWritten {
		return m.firstSelfWritten()
	}
	return e.writeTable(m.env.Out)
}

// firstSelfWritten ends a first mount in which the provider wrote its files itself. Such files are not a volume: there is no
// old generation to keep, so what a folder cannot do without a mount is not promised.
func (m *mounting) firstSelfWritten() error {
	if m.mountOptions.watch {
		return errors.New("this provider writes its files itself instead of handing them over: that cannot be watched")
	}
	if m.output == "json" {
		return (&event{Event: "mounted", Directory: m.target}).writeJSON(m.env.Out)
	}
	_, err := fmt.Fprintf(m.env.Out, "provider %s wrote its files into %s itself\n", printable(string(m.class.Spec.Provider)), printable(m.dir))
	return err
}

// watch keeps the folder fresh until ctx ends, and at once when now says so.
func (m *mounting) watch(ctx context.Context, now <-chan os.Signal) error {
	w := &watcher{
		interval: m.interval,
		refresh: func(ctx context.Context) (publish.Result, error) {
			return m.call(ctx, "refreshing", (*publish.Publisher).Refresh)
		},
		changed: m.printChange,
		failed: func(err error, next time.Duration) error {
			if errors.Is(err, publish.ErrNotMounted) {
				return m.folderGone()
			}
			if err := m.printFailure(err); err != nil {
				return err
			}
			return m.say(nil, "refresh failed, the files stay as they are; next try in "+next.Round(time.Second).String())
		},
		now: now,
	}
	if err := m.say(nil, fmt.Sprintf("watching, every %v; Ctrl-C ends", m.interval)); err != nil {
		return err
	}
	return w.run(ctx)
}

// folderGone ends a watch whose folder somebody removed: to make it again would be against their will.
func (m *mounting) folderGone() error {
	err := &provider.Error{Kind: provider.Internal, Message: "folder " + m.target + " is gone, so there is nothing to keep fresh",
		Remedy: "if that was not meant to be, start keymount again"}
	if err := m.printFailure(err); err != nil {
		return err
	}
	return &reported{ExitFailed}
}

func (m *mounting) printChange(res *publish.Result, asked, recovered bool) error {
	m.warnResult(res)
	if res.Change.Empty() && !asked && !recovered {
		return nil
	}
	e := eventOf("changed", m.target, res)
	if res.Change.Empty() {
		e.Event = "unchanged"
	}
	text := e.changes()
	if recovered {
		text = "refreshed again: " + text
	}
	return m.say(e, text)
}

// say prints one line on what happened while watching: text for people, e for programs (nil: nothing).
func (m *mounting) say(e *event, text string) error {
	if m.output == "json" {
		if e == nil {
			return nil
		}
		return e.writeJSON(m.env.Out)
	}
	_, err := fmt.Fprintf(m.env.Out, "%s %s\n", time.Now().Format(time.TimeOnly), text)
	return err
}

// printFailure says on standard error what failed, one line per object, and for programs on standard output too.
func (m *mounting) printFailure(err error) error {
	var outer *publish.Error
	if errors.As(err, &outer) {
		err = outer.Unwrap()
	}
	e := failureOf(m.target, err)
	for i := range e.Errors {
		if _, err := fmt.Fprintf(m.env.Err, "keymount: error: %s\n", e.Errors[i].line()); err != nil {
			return err
		}
	}
	if m.output == "json" {
		return e.writeJSON(m.env.Out)
	}
	return nil
}

// warnResult prints the warnings of a result unless they are those of the last one.
func (m *mounting) warnResult(res *publish.Result) {
	warnings := slices.Clone(res.Warnings)
	for _, err := range res.Unfinished {
		warnings = append(warnings, err.Error())
	}
	if !slices.Equal(warnings, m.warned) {
		m.warn(warnings)
		m.warned = warnings
	}
}

func (m *mounting) warn(warnings []string) {
	for _, w := range warnings {
		fmt.Fprintf(m.env.Err, "keymount: warning: %s\n", printable(w))
	}
}
