#!/bin/sh
# Runs once, when the data directory is new: databases, roles and their passwords, the demonstration platform's tables.
# Passwords come from variables named like the role in capitals with _PASSWORD behind; a missing one ends the start.
set -eu

run() {
    psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" "$@"
}

give_password() {
    variable="$(echo "$1" | tr '[:lower:]' '[:upper:]')_PASSWORD"
    test -n "$(printenv "$variable")"
    # \getenv keeps the password off the command line and out of the list of processes.
    printf "\\\\getenv password %s\nALTER ROLE %s LOGIN PASSWORD :'password';\n" "$variable" "$1" | run --dbname postgres
}

run --dbname postgres --command "CREATE DATABASE platform"
run --dbname habeas --file /etc/habeas/sql/roles.sql
run --dbname platform --single-transaction --file /etc/habeas/sql/platform-schema.sql --file /etc/habeas/sql/platform-roles.sql

for role in habeas_owner habeas_operator habeas_supervisor request_intake erasure_executor export_builder retention_sweeper notification_mailer audit_ledger \
    habeas_intake habeas_eraser habeas_exporter habeas_sweeper habeas_mailer; do
    give_password "$role"
done
