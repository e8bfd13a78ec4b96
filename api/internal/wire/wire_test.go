package wire

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"

	"stellar.io/stellar/api"
)

// fill gives every exported field of v a value that is not zero, so that a field
// that a conversion forgets makes the test below fail.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	switch x := v.Addr().Interface().(type) {
	case *netip.Addr:
		*x = netip.MustParseAddr("172.16.0.9")
		return
	case *netip.Prefix:
		*x = netip.MustParsePrefix("172.16.4.0/22")
		return
	case *time.Time:
		*x = time.Date(2026, 3, 4, 5, 6, 7, 89, time.UTC)
		return
	case *time.Duration:
		*x = 1234567 * time.Nanosecond
		return
	case *api.CheckState:
		*x = api.Warn
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(t, v.Index(0))
		fill(t, v.Index(1))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem())
	case reflect.String:
		v.SetString("s-" + v.Type().String())
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint64:
		v.SetUint(4026531840)
	default:
		t.Fatalf("fill: no value for %s", v.Type())
	}
}

func roundTrip[T, M any](t *testing.T, from func(T) M, to func(M) T) {
	t.Helper()
	var full, empty T
	fill(t, reflect.ValueOf(&full).Elem())
	for _, want := range []T{full, empty} {
		if diff := cmp.Diff(want, to(from(want)), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%T changed on the wire (-want +got):\n%s", want, diff)
		}
	}
}

func TestNothingIsLostOnTheWire(t *testing.T) {
	t.Parallel()
	roundTrip(t, FromStatus, ToStatus)
	roundTrip(t, FromVersion, ToVersion)
	roundTrip(t, FromEvent, ToEvent)
	roundTrip(t, FromEventQuery, ToEventQuery)
	roundTrip(t, FromCluster, ToCluster)
	roundTrip(t, FromRef, ToRef)
	roundTrip(t, FromEndpoint, ToEndpoint)
	roundTrip(t, FromDetail, ToDetail)
	roundTrip(t, FromRepair, ToRepair)
	roundTrip(t, FromAttachRequest, ToAttachRequest)
	roundTrip(t, FromAttachmentSpec, ToAttachmentSpec)
	roundTrip(t, FromAttachmentResult, ToAttachmentResult)
	roundTrip(t, FromAttachmentCheck, ToAttachmentCheck)
	roundTrip(t, FromAsked, ToAsked)
	roundTrip(t, FromAwaited, ToAwaited)
	roundTrip(t, FromNode, ToNode)
	roundTrip(t, FromRoute, ToRoute)
	roundTrip(t, FromSubnet, ToSubnet)
	roundTrip(t, FromOwner, ToOwner)
	roundTrip(t, FromAddress, ToAddress)
	roundTrip(t, FromReport, ToReport)
	roundTrip(t, FromJoinSpec, ToJoinSpec)
	roundTrip(t, FromJoined, ToJoined)
	roundTrip(t, FromRemoval, ToRemoval)
	roundTrip(t, FromNodeRemoval, ToNodeRemoval)
	roundTrip(t, FromTokenSpec, ToTokenSpec)
	roundTrip(t, FromToken, ToToken)
	roundTrip(t, FromNewToken, ToNewToken)
	roundTrip(t, FromPeer, ToPeer)
	roundTrip(t, FromRaftStats, ToRaftStats)
	roundTrip(t, FromRaftHash, ToRaftHash)
	roundTrip(t, FromSnapshot, ToSnapshot)
	roundTrip(t, FromRestored, ToRestored)
	roundTrip(t, FromCheck, ToCheck)
	roundTrip(t, FromRouteChange, ToRouteChange)
	roundTrip(t, FromPingRequest, ToPingRequest)
	roundTrip(t, FromPingMessage, ToPingMessage)
	roundTrip(t, FromConnectivityTest, ToConnectivityTest)
	roundTrip(t, FromConnectivityMessage, ToConnectivityMessage)
	roundTrip(t, FromConnectivityLoan, ToConnectivityLoan)
	roundTrip(t, FromConnectivityProbe, ToConnectivityProbe)
	roundTrip(t, FromConnectivityProbed, ToConnectivityProbed)
}

func TestUnknownCheckStateCountsAsError(t *testing.T) {
	t.Parallel()
	m := FromStatus(api.StatusReport{Checks: []api.Check{{Name: "x", State: "SOMETHING-NEW"}}})
	if got := ToStatus(m).Checks[0].State; got != api.Err {
		t.Errorf("state = %q, want ERR", got)
	}
}

func TestBytesThatAreNoTextDoNotBreakTheMessage(t *testing.T) {
	t.Parallel()
	bad := "label \xff\xfe value"
	m := FromEndpoint(api.Endpoint{Container: bad, Reason: bad})
	if _, err := proto.Marshal(m); err != nil {
		t.Fatal(err)
	}
	if got, want := m.GetReason(), "label \uFFFD value"; got != want {
		t.Errorf("reason = %q, want %q", got, want)
	}
}
