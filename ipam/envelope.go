package ipam

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"stellar.io/stellar/ipam/ipampb"
)

// envelopeVersion is the first byte of an entry.
const envelopeVersion = 1

// maxEntry bounds what Encode makes: Raft suggests entries of at most 512 KiB.
const maxEntry = 512 << 10

// Command is one change of the state: one of the structs in the cmd_*.go files.
type Command interface {
	// apply executes the command. A refusal changes nothing.
	apply(*tx) Result
	// pb returns the wire form, or an error when it would be an entry that no
	// node could decode.
	pb() (*ipampb.Command, error)
}

// Envelope is what one log entry holds: commands that are executed in order,
// each with a result of its own. A refused one does not keep the next from being
// executed.
type Envelope struct {
	Request  RequestID // zero: not remembered, a replay is executed again
	Commands []Command
}

// Encode returns the entry. It wraps ErrInvalid when the envelope holds what
// cannot be written down (texts that are not UTF-8, unknown modes) or is too large.
func (e Envelope) Encode() ([]byte, error) {
	if len(e.Commands) > MaxCommands {
		return nil, fmt.Errorf("%w: %d commands, at most %d fit", ErrInvalid, len(e.Commands), MaxCommands)
	}
	m := &ipampb.Envelope{Commands: make([]*ipampb.Command, 0, len(e.Commands))}
	if e.Request != (RequestID{}) {
		m.Request = &ipampb.RequestID{Node: string(e.Request.Node), Seq: e.Request.Seq}
	}
	for i, c := range e.Commands {
		p, err := c.pb()
		if err != nil {
			return nil, fmt.Errorf("encode command %d (%T): %w", i, c, err)
		}
		m.Commands = append(m.Commands, p)
	}
	data, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend([]byte{envelopeVersion}, m)
	if err != nil {
		return nil, fmt.Errorf("%w: encode envelope: %w", ErrInvalid, err)
	}
	if len(data) > maxEntry {
		return nil, fmt.Errorf("%w: envelope of %d bytes, at most %d fit", ErrInvalid, len(data), maxEntry)
	}
	return data, nil
}

// DecodeEnvelope is the inverse of Encode. Whatever this version does not know
// (another envelope version, a command, a field, an enum value) makes the whole
// entry an ErrUnknownCommand.
func DecodeEnvelope(data []byte) (Envelope, error) {
	if len(data) == 0 {
		return Envelope{}, fmt.Errorf("%w: empty entry", ErrUnknownCommand)
	}
	if data[0] != envelopeVersion {
		return Envelope{}, fmt.Errorf("%w: envelope version %d", ErrUnknownCommand, data[0])
	}
	if e, ok := decodeLeases(data[1:]); ok {
		return e, nil
	}
	return decodeAny(data[1:])
}

// decodeAny decodes any entry, without its first byte.
func decodeAny(data []byte) (Envelope, error) {
	m := &ipampb.Envelope{}
	if err := proto.Unmarshal(data, m); err != nil {
		return Envelope{}, fmt.Errorf("%w: %w", ErrUnknownCommand, err)
	}
	if err := knownOnly(m.ProtoReflect()); err != nil {
		return Envelope{}, err
	}
	e := Envelope{
		Request:  RequestID{Node: NodeID(m.GetRequest().GetNode()), Seq: m.GetRequest().GetSeq()},
		Commands: make([]Command, 0, len(m.Commands)),
	}
	for i, p := range m.Commands {
		c := commandFromPB(p)
		if c == nil {
			return Envelope{}, fmt.Errorf("%w: command %d", ErrUnknownCommand, i)
		}
		e.Commands = append(e.Commands, c)
	}
	return e, nil
}

// knownOnly refuses a message that holds, at any depth, a field or an enum value
// that this version does not know.
func knownOnly(m protoreflect.Message) (err error) {
	if len(m.GetUnknown()) > 0 {
		return fmt.Errorf("%w: unknown field in %s", ErrUnknownCommand, m.Descriptor().Name())
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsList() && f.Message() != nil:
			for i := 0; i < v.List().Len() && err == nil; i++ {
				err = knownOnly(v.List().Get(i).Message())
			}
		case f.Message() != nil:
			err = knownOnly(v.Message())
		case f.Enum() != nil && f.Enum().Values().ByNumber(v.Enum()) == nil:
			err = fmt.Errorf("%w: %s %d", ErrUnknownCommand, f.Name(), v.Enum())
		}
		return err == nil
	})
	return err
}

// commandFromPB returns nil for a command without a kind.
func commandFromPB(p *ipampb.Command) Command {
	switch k := p.GetKind().(type) {
	case *ipampb.Command_InitCluster:
		return initClusterFromPB(k.InitCluster)
	case *ipampb.Command_RegisterNode:
		return registerNodeFromPB(k.RegisterNode)
	case *ipampb.Command_UpdateNode:
		return updateNodeFromPB(k.UpdateNode)
	case *ipampb.Command_RemoveNode:
		return removeNodeFromPB(k.RemoveNode)
	case *ipampb.Command_ClaimSubnet:
		return claimSubnetFromPB(k.ClaimSubnet)
	case *ipampb.Command_ReleaseSubnet:
		return releaseSubnetFromPB(k.ReleaseSubnet)
	case *ipampb.Command_BindLease:
		return bindLeaseFromPB(k.BindLease)
	case *ipampb.Command_MarkLease:
		return markLeaseFromPB(k.MarkLease)
	case *ipampb.Command_ReleaseLease:
		return releaseLeaseFromPB(k.ReleaseLease)
	case *ipampb.Command_FreeLease:
		return freeLeaseFromPB(k.FreeLease)
	case *ipampb.Command_ReserveAddress:
		return reserveAddressFromPB(k.ReserveAddress)
	case *ipampb.Command_UnreserveAddress:
		return unreserveAddressFromPB(k.UnreserveAddress)
	case *ipampb.Command_Tick:
		return tickFromPB(k.Tick)
	case *ipampb.Command_CreateToken:
		return createTokenFromPB(k.CreateToken)
	case *ipampb.Command_RevokeToken:
		return revokeTokenFromPB(k.RevokeToken)
	case *ipampb.Command_JoinNode:
		return joinNodeFromPB(k.JoinNode)
	case *ipampb.Command_DrainNode:
		return drainNodeFromPB(k.DrainNode)
	case *ipampb.Command_RaiseGeneration:
		return raiseGenerationFromPB(k.RaiseGeneration)
	case *ipampb.Command_EndReclaim:
		return endReclaimFromPB(k.EndReclaim)
	case *ipampb.Command_ClaimHeld:
		return claimHeldFromPB(k.ClaimHeld)
	}
	return nil
}
