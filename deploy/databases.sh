#!/bin/sh
# Makes the two databases with a user each, and gives the users the passwords of the environment.
# Run at every start: it changes nothing where all is as it should be.
set -eu

make() { # database user password
    database=$1 user=$2 password=$3 psql --quiet --no-psqlrc --dbname=postgres --set=ON_ERROR_STOP=1 <<'SQL'
\getenv database database
\getenv user user
\getenv password password
SELECT format('CREATE ROLE %I', :'user')
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'user') \gexec
ALTER ROLE :"user" LOGIN PASSWORD :'password';
SELECT format('CREATE DATABASE %I OWNER %I', :'database', :'user')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
SQL
    echo "database $1 with user $2 is there"
}

make "$TAXI_DBNAME" "$TAXI_USER" "$TAXI_PASSWORD"
make "$DAGSTER_POSTGRES_DBNAME" "$DAGSTER_POSTGRES_USER" "$DAGSTER_POSTGRES_PASSWORD"
