"""What the services of Habeas share: contracts, chassis, sealing, data map, audit log, kit, command line."""
