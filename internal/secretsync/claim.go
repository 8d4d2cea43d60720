package secretsync

import (
	"context"
	"fmt"

	"keymount/internal/provider"
)

// A conflict is a Secret that may not be, or cannot be, made what the class asks for. It lasts until somebody changes the Secret or a class.
type conflict struct{ message, remedy string }

func (e *conflict) Error() string { return e.message }

// A terminating Secret is one that is being deleted, so that what is written to it is lost.
type terminating struct{}

func (terminating) Error() string {
	return "it is being deleted, and something keeps it from going (see its finalizers)"
}

// claim says why a Secret is not the class's to write, if it is not.
func (t *task) claim(ctx context.Context, h *have) error {
	switch {
	case h.GetDeletionTimestamp() != nil:
		return terminating{}
	case h.GetLabels()[managedLabel] != managed:
		return &conflict{message: "there is a Secret of that name that no SecretProviderClass makes, which is left as it is",
			remedy: fmt.Sprintf("name another Secret in the class, or delete this one, or hand it over by the label %s=%s", managedLabel, managed)}
	case h.note.Class == "" || h.note.Class == t.class.Name:
		return nil
	}
	other, err := t.cfg.Classes.Get(ctx, t.class.Namespace, h.note.Class)
	switch kind := provider.KindOf(err); {
	case err != nil && (kind == provider.NotFound || kind == provider.Invalid): // there is none, or it makes nothing
		return nil
	case err != nil:
		return err
	}
	for _, o := range other.Secrets {
		if o.Name == t.name {
			return &conflict{message: fmt.Sprintf("SecretProviderClass %s makes the Secret as well", quoted(h.note.Class)),
				remedy: "give one of the two classes another secretName"}
		}
	}
	return nil
}
