package providertest_test

import (
	"testing"

	"keymount/internal/provider/providertest"
)

func TestFake(t *testing.T) {
	providertest.Run(t, func(*testing.T) *providertest.Harness { return providertest.NewFake().Harness() })
}
