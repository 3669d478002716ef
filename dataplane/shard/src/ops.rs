//! Names, attributes, opens, locks, and operations across shards.
