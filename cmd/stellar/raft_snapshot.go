package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/client"
	"stellar.io/stellar/internal/atomicfile"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
)

func (a *app) raftSnapshotCommand() *cobra.Command {
	return group("snapshot", "Back the replicated state up, and restore it", "",
		a.snapshotSaveCommand(), a.snapshotInspectCommand(), a.snapshotRestoreCommand())
}

func (a *app) snapshotSaveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "save FILE", Short: "Write the replicated state to a file", Args: cobra.ExactArgs(1),
		Long: "The file, mode 0600, replaces an older one only when it is whole. It holds no secret\n" +
			"that would let anybody join.",
	}
	return a.attach(cmd, calling{a, func(ctx context.Context, cl *client.Client, args []string, stdout io.Writer) error {
		info, err := saveSnapshot(ctx, cl, args[0])
		if err != nil {
			return err
		}
		return printSnapshot(a, stdout, info)
	}}, waitTimeout)
}

// saveSnapshot makes path hold a whole snapshot or leaves it as it is.
func saveSnapshot(ctx context.Context, cl *client.Client, path string) (info api.SnapshotInfo, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return info, fmt.Errorf("save snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	info, err = cl.SaveSnapshot(ctx, f)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return info, err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return info, fmt.Errorf("save snapshot: %w", err)
	}
	if err := atomicfile.SyncDir(filepath.Dir(path)); err != nil {
		return info, fmt.Errorf("save snapshot: %w", err)
	}
	return info, nil
}

type snapshotInspect struct{ app *app }

func (a *app) snapshotInspectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "inspect FILE", Short: "Check a snapshot file and show what it is", Args: cobra.ExactArgs(1),
		Long: "Reads the whole file as a restore would; it needs no agent.",
	}
	return a.attach(cmd, &snapshotInspect{app: a}, noTimeout)
}

func (c *snapshotInspect) Run(_ context.Context, args []string, stdout, _ io.Writer) error {
	f, err := os.Open(args[0])
	if err != nil {
		return fmt.Errorf("inspect snapshot: %w", err)
	}
	defer f.Close()
	info, err := inspectSnapshot(args[0], f)
	if err != nil {
		return err
	}
	return printSnapshot(c.app, stdout, info)
}

// inspectSnapshot checks a snapshot on a state of its own.
func inspectSnapshot(name string, r io.Reader) (api.SnapshotInfo, error) {
	i, err := raftstore.SnapshotInspect(r)
	if err != nil {
		e := api.Errorf(api.CodeInvalid, "%s: %w", name, err)
		if errors.Is(err, ipam.ErrSnapshotVersion) {
			return api.SnapshotInfo{}, e.WithHint("update Stellar to the version that wrote it")
		}
		return api.SnapshotInfo{}, e
	}
	return api.SnapshotInfo{
		Cluster: i.Cluster, Generation: i.Generation, Index: i.Index, Term: i.Term, Format: int(i.Format), Size: i.Size,
		Hash: hex.EncodeToString(i.SHA256[:]),
	}, nil
}

func printSnapshot(a *app, stdout io.Writer, i api.SnapshotInfo) error {
	return printObject(a, stdout, "Snapshot", i, i.Hash, snapshotFields(i))
}

func snapshotFields(i api.SnapshotInfo) []field {
	return []field{
		{"Cluster", i.Cluster}, {"Generation", strconv.FormatUint(i.Generation, 10)}, {"Index", indexCell(i.Index)}, {"Term", indexCell(i.Term)},
		{"Format", strconv.Itoa(i.Format)}, {"Size", strconv.FormatInt(i.Size, 10)}, {"Hash", i.Hash},
	}
}

type snapshotRestore struct{ app *app }

func (a *app) snapshotRestoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Make a snapshot the state of the cluster", Args: cobra.ExactArgs(1),
		Long: "The file is checked first, here and by the leader; only a snapshot of this cluster is\n" +
			"taken. The cluster starts a new generation: epochs, tombstones and what was ever handed\n" +
			"out are kept from both sides, and no subnet is handed out until\n" +
			"`stellar cluster end-reclaim`. The present state is saved on the leader before.",
	}
	return a.attach(cmd, &snapshotRestore{app: a}, waitTimeout)
}

func (c *snapshotRestore) Run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f, err := os.Open(args[0])
	if err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	defer f.Close()
	info, err := inspectSnapshot(args[0], f)
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	action := fmt.Sprintf("replace the state of cluster %s by %s, of generation %d and index %d: what came later is lost",
		info.Cluster, args[0], info.Generation, info.Index)
	if err := c.app.confirm(action); err != nil {
		return err
	}
	got, err := cl.RestoreSnapshot(ctx, f)
	if err != nil {
		return err
	}
	if c.app.output != formatJSON {
		fmt.Fprintln(stderr, "no subnet is handed out until `stellar cluster end-reclaim`; `stellar node ls` shows which nodes have theirs")
	}
	return printObject(c.app, stdout, "Restore", got, got.Snapshot.Hash, []field{
		{"Cluster", got.Snapshot.Cluster}, {"Restored index", indexCell(got.Snapshot.Index)}, {"Index", indexCell(got.Index)},
		{"Generation", strconv.FormatUint(got.Generation, 10)}, {"Backup", got.Backup},
	})
}
