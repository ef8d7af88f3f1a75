"""The side ports: 8022 drain, 9090 autoscaler, 9091 metrics."""
