"""What servers of databases say where waiting does not help, and the remedy; where the password comes from."""

# Where a password waits for the processes that open the study: they inherit it, and no file or log gets to hold it.
PASSWORD_VARIABLE = "MEDBOT_EXP_STORAGE_PASSWORD"

# What servers say where waiting does not help, and the remedy; the first that fits. libpq gives no code for a
# connection that failed.
PASSWORD_REMEDY = f"Correct the user and the password: in the URL, in {PASSWORD_VARIABLE} or in ~/.pgpass"
REFUSALS = {
    "password authentication failed": PASSWORD_REMEDY,
    "no password supplied": PASSWORD_REMEDY,
    "' to database '": "Create it on the server (CREATE DATABASE) and GRANT it to this user, or correct the URL",
    "Access denied": PASSWORD_REMEDY,
    "no pg_hba.conf entry": "Let the server accept this host and user (pg_hba.conf)",
    "does not exist": "Create it on the server (createdb, createuser), or correct the URL",
    "Unknown database": "Create it on the server (CREATE DATABASE), or correct the URL",
    "No space left on device": "Free some space on the server",
}
