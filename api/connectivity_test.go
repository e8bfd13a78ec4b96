package api

import (
	"encoding/json"
	"testing"
	"time"
)

func TestMillis(t *testing.T) {
	t.Parallel()
	for in, want := range map[time.Duration]string{0: "0", 123456 * time.Nanosecond: "0.123", 1500 * time.Millisecond: "1500"} {
		data, err := json.Marshal(Millis(in))
		if err != nil || string(data) != want {
			t.Errorf("%s: %s, %v", in, data, err)
		}
		var back Millis
		if err := json.Unmarshal(data, &back); err != nil || time.Duration(back).Truncate(time.Microsecond) != in.Truncate(time.Microsecond) {
			t.Errorf("%s came back as %s, %v", in, time.Duration(back), err)
		}
	}
	if err := json.Unmarshal([]byte(`"x"`), new(Millis)); err == nil {
		t.Error("text was taken for milliseconds")
	}
}
