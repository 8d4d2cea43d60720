package node

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"keymount/internal/classes"
	"keymount/internal/provider"
	"keymount/internal/publish"
)

// defaultMode is the mode of files for which the class names none, as upstream's driver passes it.
const defaultMode fs.FileMode = 0o644

// AccountAnnotations is the parameter that carries the service account's annotations to the provider, as a JSON object. The
// driver always sets or removes it itself, so nobody can write it into a class or a pod.
const AccountAnnotations = provider.AnnotationPrefix + "service-account-annotations"

// volume is the mount in the terms of publish. Whatever needs the API server is left to Resolve, which is not called for a
// volume that is left as it is, and whatever only a fetch needs to Prepare.
func (s *Server) volume(m *mount) publish.Volume {
	var class *classes.Class
	return publish.Volume{
		ID: m.volumeID, Target: m.target,
		Class: publish.Class{Namespace: m.pod.Namespace, Name: m.class},
		Group: m.group,
		Once:  s.cfg.Rotation.Interval <= 0,
		Due:   publish.Due{Every: s.cfg.Rotation.Interval},
		Request: provider.Request{
			Pod: m.pod, Secrets: m.secrets, DefaultMode: defaultMode,
		},
		Resolve: func(ctx context.Context, v *publish.Volume) (err error) {
			class, err = s.resolve(ctx, v)
			return err
		},
		Prepare: func(ctx context.Context, v *publish.Volume) error { return s.prepare(ctx, m, class, v) },
		Holds: func() {
			// Without rotation nobody asks for the class again, unless it asks for Secrets that are to be kept in being.
			if s.cfg.Rotation.Interval > 0 || class != nil && len(class.Secrets) > 0 {
				s.cfg.Classes.Use(m.volumeID, m.pod.Namespace, m.class)
			}
		},
	}
}

// resolve finds out which class the volume is of, and when that has it refreshed.
func (s *Server) resolve(ctx context.Context, v *publish.Volume) (*classes.Class, error) {
	class, err := s.cfg.Classes.Get(ctx, v.Class.Namespace, v.Class.Name)
	if err != nil {
		return nil, err
	}
	if err := class.Check(); err != nil {
		return nil, err
	}
	v.Provider, v.Warnings = class.Provider, slices.Concat(class.Warnings, s.warnings(class))
	v.ClassUID, v.ClassGeneration, v.Secrets = class.UID, class.Generation, class.Secrets
	v.Due = s.due(class)
	return class, nil
}

// warnings are about what the class asks for and does not get from this driver.
func (s *Server) warnings(class *classes.Class) (all []string) {
	if asked := class.RotationPollInterval; asked > 0 && asked < s.cfg.Rotation.MinInterval {
		all = append(all, fmt.Sprintf("SecretProviderClass %s/%s asks to be refreshed every %v; the driver's shortest interval is %v",
			class.Namespace, class.Name, asked, s.cfg.Rotation.MinInterval))
	}
	return all
}

// prepare finds out what the volume is to hold, and who asks.
func (s *Server) prepare(ctx context.Context, m *mount, class *classes.Class, v *publish.Volume) (err error) {
	if v.Request.Parameters, err = overlay(class, m.attributes); err != nil {
		return err
	}
	if len(s.cfg.AccountAnnotations) > 0 {
		text, err := s.accountAnnotations(ctx, m.pod)
		if err != nil {
			return err
		}
		if text != "" {
			v.Request.Parameters[AccountAnnotations] = text
		}
	}
	if m.tokens == "" {
		return nil
	}
	v.Request.Tokens, err = s.cfg.Tokens.Prove(ctx, m.pod, m.tokens, m.origin)
	return err
}

// due is when a volume of the class is refreshed.
func (s *Server) due(class *classes.Class) publish.Due {
	every := s.cfg.Rotation.Interval
	if class.RotationPollInterval > 0 {
		every = max(class.RotationPollInterval, s.cfg.Rotation.MinInterval)
	}
	return publish.Due{Every: every, Mark: class.Refresh, MarkSeen: class.RefreshSeen, MarkChanged: class.RefreshChanged}
}

// overlay puts the volume's attributes over the class's parameters. Kubelet's keys are kubelet's alone, and what only the
// driver may say is nobody else's.
func overlay(class *classes.Class, attributes map[string]string) (map[string]string, error) {
	if class.LockParameters {
		if own := overrides(attributes); len(own) > 0 {
			return nil, &provider.Error{Kind: provider.Invalid,
				Message: fmt.Sprintf("class %s/%s locks its parameters, and the pod's volume sets %s",
					class.Namespace, class.Name, provider.OneLine(strings.Join(own, ", "), maxKeysLogged)),
				Remedy: "remove them from csi.volumeAttributes of the pod, or the annotation " + classes.LockParameters + " from the class"}
		}
	}
	params := make(map[string]string, len(class.Parameters)+len(attributes)+1)
	for key, value := range class.Parameters {
		if !ofKubelet(key) && !ofDriver(key) {
			params[key] = value
		}
	}
	for key, value := range attributes {
		// Under kubelet's prefix an author can write what kubelet does not set.
		if ofDriver(key) || class.LockParameters && ofKubelet(key) && key != keyEphemeral {
			continue
		}
		params[key] = value
	}
	return params, nil
}

// overrides lists what the pod's author set beside the class's name.
func overrides(attributes map[string]string) []string {
	var own []string
	for _, key := range slices.Sorted(maps.Keys(attributes)) {
		if key != keyClass && !ofKubelet(key) {
			own = append(own, key)
		}
	}
	return own
}

func ofDriver(key string) bool { return strings.HasPrefix(key, provider.AnnotationPrefix) }

// accountAnnotations returns the annotations that are there as a JSON object, "" if there is none.
func (s *Server) accountAnnotations(ctx context.Context, pod provider.Pod) (string, error) {
	if pod.ServiceAccount == "" {
		return "", nil
	}
	found, err := s.cfg.Accounts.Annotations(ctx, pod.Namespace, pod.ServiceAccount, s.cfg.AccountAnnotations)
	if err != nil && provider.KindOf(err) == provider.Denied {
		return "", nil // the reader says so once; classes that do not need annotations are served without the right
	}
	if err != nil || len(found) == 0 {
		return "", err
	}
	text, err := json.Marshal(found)
	if err != nil {
		return "", fmt.Errorf("encoding annotations of service account %s/%s: %w", pod.Namespace, pod.ServiceAccount, err)
	}
	return string(text), nil
}
