//! Every oracle bites: each is fed a run that breaks its rule.
