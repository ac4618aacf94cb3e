#!/bin/sh
# Makes the two databases with a user each, and a third user who can only read the taxi database; gives
# the users the passwords of the environment.
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

# The statements are those of the embedded Postgres. The names in them are set by a person.
reader() { # database loader reader password
    for name in "$1" "$2" "$3"; do
        case $name in '' | *[!A-Za-z0-9_]*)
            echo "'$name' is not a name of letters, digits and underscores" >&2
            exit 1
            ;;
        esac
    done
    sed -e "s/{database}/$1/g" -e "s/{loader}/$2/g" -e "s/{reader}/$3/g" /reader.sql |
        psql --quiet --no-psqlrc --dbname="$1" --set=ON_ERROR_STOP=1
    reader=$3 password=$4 psql --quiet --no-psqlrc --dbname="$1" --set=ON_ERROR_STOP=1 <<'SQL'
\getenv reader reader
\getenv password password
ALTER ROLE :"reader" PASSWORD :'password';
SQL
    echo "user $3 can read database $1"
}

# One role would get the passwords of both, and only the last would let anybody in.
users=" $PGUSER "
for user in "$POSTGRES_USER" "$POSTGRES_READER_USER" "$DAGSTER_POSTGRES_USER"; do
    case $users in *" $user "*)
        echo "two roles are called $user: POSTGRES_USER and POSTGRES_READER_USER in .env must be" \
            "two names other than $PGUSER and $DAGSTER_POSTGRES_USER" >&2
        exit 1
        ;;
    esac
    users="$users$user "
done

make "$POSTGRES_DBNAME" "$POSTGRES_USER" "$POSTGRES_PASSWORD"
reader "$POSTGRES_DBNAME" "$POSTGRES_USER" "$POSTGRES_READER_USER" "$POSTGRES_READER_PASSWORD"
make "$DAGSTER_POSTGRES_DBNAME" "$DAGSTER_POSTGRES_USER" "$DAGSTER_POSTGRES_PASSWORD"
