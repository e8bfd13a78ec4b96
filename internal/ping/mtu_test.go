package ping

import (
	"errors"
	"fmt"
	"testing"
)

func TestSearch(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		expected, real, told int
		most                 int // tries
	}{
		{1500, 1500, 0, 1}, {1500, 9000, 0, 1}, {1500, 1450, 1450, 2}, {1500, 1400, 1450, 13}, {1500, 1450, 0, 13},
		{1500, 68, 0, 13}, {1500, 67, 0, 2}, {1500, 0, 0, 2}, {9000, 8951, 0, 16}, {68, 68, 0, 1}, {68, 0, 0, 1},
		{1500, 1499, 1499, 2}, {1500, 1300, 1500, 13},
	} {
		name := fmt.Sprintf("%d of %d, told %d", tt.real, tt.expected, tt.told)
		tries := 0
		got, err := search(t.Context(), tt.expected, func(size int) (bool, int, error) {
			if tries++; size < minMTU || size > tt.expected {
				t.Errorf("%s: tries %d", name, size)
			}
			if size > tt.real {
				return false, tt.told, nil
			}
			return true, 0, nil
		})
		want := min(tt.real, tt.expected)
		if want < minMTU {
			want = 0
		}
		if got != want || err != nil || tries > tt.most {
			t.Errorf("%s: %d, %v after %d tries; want %d after %d", name, got, err, tries, want, tt.most)
		}
	}
	broken := errors.New("broken")
	if _, err := search(t.Context(), 1500, func(int) (bool, int, error) { return false, 0, broken }); !errors.Is(err, broken) {
		t.Errorf("err %v", err)
	}
}
