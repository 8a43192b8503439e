package main

import (
	"fmt"
	"net/url"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
)

// etcd serves one member on loopback until it is told to end.
func etcd() *cobra.Command {
	var dir, client, peer string
	command := &cobra.Command{
		Use:  "etcd",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := member(dir, client, peer)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			server, err := embed.StartEtcd(config)
			if err != nil {
				return fmt.Errorf("start etcd: %w", err)
			}
			defer server.Close()
			select {
			case <-ctx.Done():
				return nil
			case err := <-server.Err():
				return fmt.Errorf("serve etcd: %w", err)
			}
		},
	}
	command.Flags().StringVar(&dir, "data-dir", "", "folder of the data")
	command.Flags().StringVar(&client, "client-url", "http://127.0.0.1:2379", "where clients are served")
	command.Flags().StringVar(&peer, "peer-url", "http://127.0.0.1:2380", "where peers would be served")
	return command
}

func member(dir, client, peer string) (*embed.Config, error) {
	clients, err := url.Parse(client)
	if err != nil {
		return nil, fmt.Errorf("read client URL: %w", err)
	}
	peers, err := url.Parse(peer)
	if err != nil {
		return nil, fmt.Errorf("read peer URL: %w", err)
	}
	config := embed.NewConfig()
	config.Dir = dir
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{*clients}, []url.URL{*clients}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{*peers}, []url.URL{*peers}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.LogLevel = "error"
	// The data live as long as one test run; a crash of the machine may take them.
	config.UnsafeNoFsync = true
	return config, nil
}
