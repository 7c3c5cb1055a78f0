//! Sequences that differed once, as small as they could be made.

/// What had happened, and the operations.
pub(super) const REGRESSIONS: &[(&str, &str)] = &[(
    "a truncation by who may only read was forgotten when the writer had closed before",
    "0 open 3 c O_WRONLY|O_CREAT
     0 write 3 29 4096
     0 open 1 c O_RDONLY|O_TRUNC
     0 close 3
     0 close 1
     0 stat c
     0 cat c",
)];
