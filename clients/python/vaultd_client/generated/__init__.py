"""What the generator writes for the SDK: its methods, the table of RPCs, the service config.  Nothing here is edited by hand."""
