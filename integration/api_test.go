package integration

import (
	"context"
	"time"

	containers "github.com/containerd/containerd/api/services/containers/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// deleteRecord deletes a container's record and leaves its task running, which
// containerd's API allows and ctr does not.
func (n *node) deleteRecord(namespace, id string) {
	n.t.Helper()
	conn, err := grpc.NewClient("unix://"+n.containerd.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		n.t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespace)
	if _, err := containers.NewContainersClient(conn).Delete(ctx, &containers.DeleteContainerRequest{ID: id}); err != nil {
		n.t.Fatal(err)
	}
}
