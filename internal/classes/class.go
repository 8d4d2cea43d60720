package classes

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	v1 "keymount/api/v1"
	"keymount/internal/provider"
	"keymount/internal/publish"
)

// The annotations of a class that Keymount reads.
const (
	// LockParameters keeps the volume attributes of pods out of the class's parameters, whatever it holds but nothing or a
	// spelling of false.
	LockParameters = provider.AnnotationPrefix + "lock-parameters"
	// RotationPollInterval is how often the volumes of the class are refreshed, as a duration such as 5m.
	RotationPollInterval = provider.AnnotationPrefix + "rotation-poll-interval"
	// Refresh may hold anything; a change means refresh now.
	Refresh = provider.AnnotationPrefix + "refresh"
)

const (
	maxRefresh = 128 // bytes that are kept of the refresh annotation; a longer one is kept as its digest
	maxQuoted  = 64  // bytes of an annotation that a warning repeats
	maxUnknown = 5   // annotations that a warning names
	perValue   = 128 // bytes that a value costs beside its own
)

// A Class is what Keymount needs to know of a SecretProviderClass. It may be shared with other callers, so nobody changes it.
type Class struct {
	Namespace, Name, UID string
	Generation           int64
	Provider             string
	Parameters           map[string]string
	// Secrets are spec.secretObjects.
	Secrets []publish.SecretObject
	// LockParameters says that pods may not override the parameters.
	LockParameters bool
	// RotationPollInterval is the interval that the class asks for, 0 if it asks for none.
	RotationPollInterval time.Duration
	// Refresh stands for the value of the annotation: when it differs from the last one seen, the author wants a refresh. Of a class in use, which
	// may change it all the time, it is the last value whose turn has come.
	Refresh string
	// RefreshSeen is when this process first read that value; never before the API server had it.
	RefreshSeen time.Time
	// RefreshChanged says that the value came while this process knew the class with another one: at RefreshSeen somebody asked for something.
	RefreshChanged bool
	// Warnings are for people: one sentence each about what was ignored.
	Warnings []string
}

// Check says what a class lacks that no pod can mend, in the words that users of the Secrets Store CSI Driver search for.
// It looks at the class alone, before any attribute of a volume is laid over its parameters.
func (c *Class) Check() error {
	switch {
	case c.Provider == "":
		return &provider.Error{Kind: provider.Invalid, Message: fmt.Sprintf("provider not set in %s/%s", c.Namespace, c.Name),
			Remedy: "set spec.provider of the SecretProviderClass, for example to azure"}
	case len(c.Parameters) == 0:
		return &provider.Error{Kind: provider.Invalid, Message: fmt.Sprintf("parameters not set in %s/%s", c.Namespace, c.Name),
			Remedy: "set spec.parameters of the SecretProviderClass"}
	}
	return nil
}

// size is about how many bytes are kept of the class; 0 for nil.
func (c *Class) size() int {
	if c == nil {
		return 0
	}
	size := perValue + len(c.Provider)
	count := func(values map[string]string) {
		for key, value := range values {
			size += perValue + len(key) + len(value)
		}
	}
	count(c.Parameters)
	for _, o := range c.Secrets {
		size += perValue + len(o.Name) + len(o.Type)
		count(o.Labels)
		count(o.Annotations)
		for _, d := range o.Data {
			size += perValue + len(d.File) + len(d.Key)
		}
	}
	return size
}

// parse takes what is needed out of an object of either version, whose specs are the same.
func parse(u *unstructured.Unstructured) (*Class, error) {
	var object struct {
		Spec v1.SecretProviderClassSpec `json:"spec"`
	}
	spec := map[string]any{"spec": u.Object["spec"]}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(spec, &object); err != nil {
		return nil, fmt.Errorf("reading its spec: %w", err)
	}
	c := &Class{
		Namespace: u.GetNamespace(), Name: u.GetName(), UID: string(u.GetUID()), Generation: u.GetGeneration(),
		Provider: string(object.Spec.Provider), Parameters: object.Spec.Parameters,
	}
	for _, o := range object.Spec.SecretObjects {
		c.Secrets = append(c.Secrets, secretObject(o))
	}
	c.annotate(u.GetAnnotations())
	return c, nil
}

// secretObject is what an author wrote; one that is null asks for nothing, and is refused where it is used.
func secretObject(o *v1.SecretObject) (out publish.SecretObject) {
	if o == nil {
		return out
	}
	// Blanks around names are cut off, as upstream does.
	out = publish.SecretObject{Name: strings.TrimSpace(o.SecretName), Type: strings.TrimSpace(o.Type), Labels: o.Labels, Annotations: o.Annotations}
	for _, d := range o.Data {
		if d == nil {
			d = &v1.SecretObjectData{}
		}
		out.Data = append(out.Data, publish.SecretKey{Key: strings.TrimSpace(d.Key), File: strings.TrimSpace(d.ObjectName)})
	}
	return out
}

func (c *Class) annotate(annotations map[string]string) {
	if text := annotations[LockParameters]; text != "" {
		locks, err := strconv.ParseBool(text)
		c.LockParameters = locks || err != nil // a lock that was spelt wrong must not be an open door
		if err != nil {
			c.Warnings = append(c.Warnings, fmt.Sprintf("the annotation %s of SecretProviderClass %s/%s locks its parameters, although its value %q is neither true nor false",
				LockParameters, c.Namespace, c.Name, quoted(text)))
		}
	}
	if text, ok := annotations[RotationPollInterval]; ok {
		interval, err := time.ParseDuration(text)
		switch {
		case err != nil:
			c.warn(RotationPollInterval, text, "it must be a duration such as 5m")
		case interval <= 0:
			c.warn(RotationPollInterval, text, "it must be more than 0")
		default:
			c.RotationPollInterval = interval
		}
	}
	c.Refresh = annotations[Refresh]
	if len(c.Refresh) > maxRefresh {
		digest := sha256.Sum256([]byte(c.Refresh))
		c.Refresh = "sha256:" + hex.EncodeToString(digest[:])
	}
	c.warnOfUnknown(annotations)
}

// warnOfUnknown names annotations that look like ours and are none: a slip in one would go unnoticed.
func (c *Class) warnOfUnknown(annotations map[string]string) {
	var unknown []string
	for name := range annotations {
		if strings.HasPrefix(name, provider.AnnotationPrefix) && name != LockParameters && name != RotationPollInterval && name != Refresh {
			unknown = append(unknown, quoted(name))
		}
	}
	if len(unknown) == 0 {
		return
	}
	slices.Sort(unknown)
	if more := len(unknown) - maxUnknown; more > 0 {
		unknown = append(unknown[:maxUnknown], fmt.Sprintf("%d more", more))
	}
	c.Warnings = append(c.Warnings, fmt.Sprintf("SecretProviderClass %s/%s has annotations that mean nothing: %s; known are %s, %s and %s",
		c.Namespace, c.Name, strings.Join(unknown, ", "), LockParameters, RotationPollInterval, Refresh))
}

func (c *Class) warn(annotation, text, why string) {
	c.Warnings = append(c.Warnings, fmt.Sprintf("the annotation %s of SecretProviderClass %s/%s is ignored: its value %q is of no use, %s",
		annotation, c.Namespace, c.Name, quoted(text), why))
}

// quoted is what a warning repeats of an annotation.
func quoted(text string) string {
	if len(text) > maxQuoted {
		text = text[:maxQuoted] + "..."
	}
	return text
}
