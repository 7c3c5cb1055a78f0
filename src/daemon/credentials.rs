//! Credentials given away, to what speaks `credential_process`.

use zeroize::Zeroizing;

use super::Failure;
use super::time::Keeping;
use crate::clock::believed::Believed;
use crate::config::Issuing;
use crate::creds;
use crate::net::Net;

/// What a `credential_process` prints: the lease that the mounts of this device use, if it has time
/// left, else a new one, for all of them. Needs a runtime.
///
/// # Errors
/// One line.
pub async fn credentials(config: &Issuing) -> Result<Zeroizing<String>, Failure> {
    let clock = Believed::of_process();
    Keeping::look(&config.common_dir.join("clock"), &clock);
    let net = Net::new(&config.net).map_err(|error| Failure::Usage(error.to_string()))?;
    let lease = creds::lease(&config.creds, &net, clock).await;
    let lease = lease.map_err(|error| Failure::Usage(format!("no credentials: {error}")))?;
    Ok(lease.to_credential_process())
}
