"""`lab nightly`: the job's file, its night, the accepted build beside it, and what is written of it for others."""
