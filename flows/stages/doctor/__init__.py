"""What `vigorl doctor` looks at; Prefect's part is in `flows.orchestration.server_health`."""
