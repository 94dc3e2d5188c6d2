//! The second factor: time-based one-time passwords (RFC 6238: HMAC-SHA-1, 30 s, 6 digits) and recovery codes.
//!
//! - The secret is sealed under the master key; it counts once a code of it was seen.
//! - A code is taken once: the step that it was of, and every one before, is refused from then on, under any race.
//! - Ten recovery codes of about 96 bits, stored as fingerprints, each good once, stand in for a lost device.

use ring::hmac;
use uuid::Uuid;

use super::Dashboard;
use super::access::{Actor, Denied, Principal};
use super::audit::{self, Event};
use super::keys::KeysError;
use super::master::OpenError;
use super::random;
use super::store::{Columns, StoreError, Tx, query};

const STEP_S: i64 = 30;
const DIGITS: usize = 6;
/// Clocks of phones differ: one step before and after counts too (RFC 6238 section 5.2).
const STEPS_OFF: i64 = 1;
const SECRET_BYTES: usize = 20;
const RECOVERY_CODES: usize = 10;

#[derive(Debug, thiserror::Error)]
pub enum TotpError {
    #[error("the second factor is on already; turn it off first to set it up on another device")]
    On,
    #[error("the second factor is not being set up; begin again")]
    NotBegun,
    #[error("this code is not right; check that the device's clock is, and type the code that it shows now")]
    Code,
    #[error("the secret of the second factor does not open")]
    Sealed(#[from] OpenError),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for TotpError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What an authenticator app needs to know.
#[derive(Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// Base32, to be typed.
    pub secret: String,
    /// `otpauth://…`, to be scanned.
    pub uri: String,
}

impl std::fmt::Debug for Enrolment {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enrolment").finish_non_exhaustive()
    }
}

/// How an account is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Off,
    /// A secret was shown; no code of it was seen yet.
    Begun,
    On {
        recovery_codes_left: i64,
    },
}

/// # Errors
/// [`StoreError`].
pub async fn status(dashboard: &Dashboard, account: Uuid) -> Result<Status, StoreError> {
    let row = query(
        "SELECT confirmed_at, (SELECT COUNT(*) FROM recovery_codes r WHERE r.account_id = t.account_id \
         AND r.used_at IS NULL) AS codes_left FROM totp_secrets t WHERE account_id = $1",
    );
    let row = row.bind(account.to_string()).fetch_optional(dashboard.home.reader()).await?;
    let Some(row) = row else { return Ok(Status::Off) };
    match row.int_or_null("confirmed_at")? {
        None => Ok(Status::Begun),
        Some(_) => Ok(Status::On { recovery_codes_left: row.int("codes_left")? }),
    }
}

/// Makes a secret for the account's device. Nothing is asked for at log-in before [`confirm`].
///
/// # Errors
/// [`TotpError::On`] if there is a confirmed one.
pub async fn begin(dashboard: &Dashboard, actor: &Actor, account: Uuid) -> Result<(), TotpError> {
    own(actor, account)?;
    let secret = random::bytes::<SECRET_BYTES>();
    let sealed = dashboard.master.seal(&purpose(account), &secret);
    let mut tx = dashboard.home.begin().await?;
    let insert = query(
        "INSERT INTO totp_secrets (account_id, sealed, created_at, last_step) VALUES ($1, $2, $3, 0) \
         ON CONFLICT (account_id) DO UPDATE SET sealed = excluded.sealed, created_at = excluded.created_at \
         WHERE totp_secrets.confirmed_at IS NULL",
    );
    let insert = insert.bind(account.to_string()).bind(sealed).bind(dashboard.now());
    if insert.execute(&mut *tx).await?.rows_affected() != 1 {
        return Err(TotpError::On);
    }
    Ok(tx.commit().await?)
}

/// What is being set up, for showing it (again).
///
/// # Errors
/// [`TotpError::NotBegun`] also once it is confirmed: the secret is not shown any more then.
pub async fn begun(
    dashboard: &Dashboard,
    actor: &Actor,
    account: Uuid,
    email: &str,
) -> Result<Enrolment, TotpError> {
    own(actor, account)?;
    let row = query("SELECT sealed FROM totp_secrets WHERE account_id = $1 AND confirmed_at IS NULL");
    let row = row.bind(account.to_string()).fetch_optional(dashboard.home.reader()).await?;
    let sealed = row.ok_or(TotpError::NotBegun)?.text("sealed")?;
    let secret = base32(&dashboard.master.open(&purpose(account), &sealed)?);
    let label: String = email.bytes().map(percent_encoded).collect();
    let uri = format!("otpauth://totp/WireSocket:{label}?secret={secret}&issuer=WireSocket");
    Ok(Enrolment { secret, uri })
}

/// Turns the second factor on with a first code; the recovery codes, returned this once.
///
/// # Errors
/// [`TotpError::Code`] if it is not the secret's.
pub async fn confirm(
    dashboard: &Dashboard,
    actor: &Actor,
    account: Uuid,
    code: &str,
) -> Result<Vec<String>, TotpError> {
    own(actor, account)?;
    let now = dashboard.now();
    let row = query("SELECT sealed FROM totp_secrets WHERE account_id = $1 AND confirmed_at IS NULL");
    let row = row.bind(account.to_string()).fetch_optional(dashboard.home.reader()).await?;
    let sealed = row.ok_or(TotpError::NotBegun)?.text("sealed")?;
    let secret = dashboard.master.open(&purpose(account), &sealed)?;
    let step = step_of(&secret, code, now).ok_or(TotpError::Code)?;
    let mut tx = dashboard.home.begin().await?;
    let update = query(
        "UPDATE totp_secrets SET confirmed_at = $1, last_step = $2 \
         WHERE account_id = $3 AND sealed = $4 AND confirmed_at IS NULL",
    );
    let update = update.bind(now).bind(step).bind(account.to_string()).bind(sealed);
    if update.execute(&mut *tx).await?.rows_affected() != 1 {
        return Err(TotpError::NotBegun);
    }
    let codes = new_codes(&mut tx, account).await?;
    audit::append(&mut tx, &Event::new(now, actor, "account.totp_on", account)).await?;
    tx.commit().await?;
    Ok(codes)
}

/// New recovery codes in the place of all that were there, returned this once. Whether the account's owner asks is the
/// caller's to make sure, by the password.
///
/// # Errors
/// [`TotpError::NotBegun`] if the second factor is not on.
pub async fn renew_recovery_codes(
    dashboard: &Dashboard,
    actor: &Actor,
    account: Uuid,
) -> Result<Vec<String>, TotpError> {
    own(actor, account)?;
    let mut tx = dashboard.home.begin().await?;
    // The row is locked: of two requests at once, the codes of the later are there and no others.
    let lock = query(
        "UPDATE totp_secrets SET last_step = last_step WHERE account_id = $1 AND confirmed_at IS NOT NULL",
    );
    if lock.bind(account.to_string()).execute(&mut *tx).await?.rows_affected() != 1 {
        return Err(TotpError::NotBegun);
    }
    let codes = new_codes(&mut tx, account).await?;
    let event = Event::new(dashboard.now(), actor, "account.recovery_codes_new", account);
    audit::append(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(codes)
}

async fn new_codes(tx: &mut Tx, account: Uuid) -> Result<Vec<String>, StoreError> {
    let delete = query("DELETE FROM recovery_codes WHERE account_id = $1");
    delete.bind(account.to_string()).execute(&mut **tx).await?;
    let codes: Vec<String> = (0..RECOVERY_CODES).map(|_| random::word()).collect();
    for code in &codes {
        let insert = query("INSERT INTO recovery_codes (account_id, code_hash) VALUES ($1, $2)");
        insert.bind(account.to_string()).bind(random::fingerprint(code)).execute(&mut **tx).await?;
    }
    Ok(codes.iter().map(|code| grouped(code)).collect())
}

/// Whether this is a code of the account's device, or one of its recovery codes, that nobody used before. How many may
/// be tried is the caller's to count.
///
/// # Errors
/// [`TotpError`].
pub async fn take(
    dashboard: &Dashboard,
    actor: &Actor,
    account: Uuid,
    typed: &str,
) -> Result<bool, TotpError> {
    let now = dashboard.now();
    let row = query("SELECT sealed FROM totp_secrets WHERE account_id = $1 AND confirmed_at IS NOT NULL");
    let row = row.bind(account.to_string()).fetch_optional(dashboard.home.reader()).await?;
    let Some(row) = row else { return Ok(false) };
    let secret = dashboard.master.open(&purpose(account), &row.text("sealed")?)?;
    let mut tx = dashboard.home.begin().await?;
    if let Some(step) = step_of(&secret, typed, now) {
        let update = query("UPDATE totp_secrets SET last_step = $1 WHERE account_id = $2 AND last_step < $1");
        let update = update.bind(step).bind(account.to_string());
        let is_new = update.execute(&mut *tx).await?.rows_affected() == 1;
        tx.commit().await?;
        return Ok(is_new);
    }
    let update = query(
        "UPDATE recovery_codes SET used_at = $1 WHERE account_id = $2 AND code_hash = $3 AND used_at IS NULL",
    );
    let code: String = typed.chars().filter(char::is_ascii_alphanumeric).collect();
    let code = random::fingerprint(&code.to_lowercase());
    let update = update.bind(now).bind(account.to_string()).bind(code);
    let is_good = update.execute(&mut *tx).await?.rows_affected() == 1;
    if is_good {
        let actor = Actor::account(account, actor.address);
        audit::append(&mut tx, &Event::new(now, &actor, "account.recovery_code", account)).await?;
        tx.commit().await?;
    }
    Ok(is_good)
}

/// Turns the second factor off. Whether its owner asks is the caller's to make sure, by the password.
///
/// # Errors
/// [`TotpError::NotBegun`] if there is none.
pub async fn turn_off(dashboard: &Dashboard, actor: &Actor, account: Uuid) -> Result<(), TotpError> {
    own(actor, account)?;
    let mut tx = dashboard.home.begin().await?;
    let delete = query("DELETE FROM totp_secrets WHERE account_id = $1").bind(account.to_string());
    if delete.execute(&mut *tx).await?.rows_affected() != 1 {
        return Err(TotpError::NotBegun);
    }
    let delete = query("DELETE FROM recovery_codes WHERE account_id = $1").bind(account.to_string());
    delete.execute(&mut *tx).await?;
    audit::append(&mut tx, &Event::new(dashboard.now(), actor, "account.totp_off", account)).await?;
    Ok(tx.commit().await?)
}

/// Seals every secret anew under the newest master key; how many were not yet. `keys::reseal` does the rest.
pub(super) async fn reseal(dashboard: &Dashboard) -> Result<u32, KeysError> {
    let newest = format!("{}.", dashboard.master.newest());
    let rows =
        query("SELECT account_id, sealed FROM totp_secrets").fetch_all(dashboard.home.reader()).await?;
    let mut resealed = 0;
    for row in &rows {
        let (account, old): (Uuid, String) = (row.parsed("account_id")?, row.text("sealed")?);
        if old.starts_with(&newest) {
            continue;
        }
        let plain = dashboard.master.open(&purpose(account), &old);
        let plain = plain.map_err(|source| KeysError::Sealed { kid: purpose(account), source })?;
        let mut tx = dashboard.home.begin().await?;
        let update = query("UPDATE totp_secrets SET sealed = $1 WHERE account_id = $2 AND sealed = $3");
        let update = update.bind(dashboard.master.seal(&purpose(account), &plain));
        let update = update.bind(account.to_string()).bind(old);
        resealed += u32::from(update.execute(&mut *tx).await?.rows_affected() == 1);
        tx.commit().await?;
    }
    Ok(resealed)
}

/// A second factor is its owner's alone.
fn own(actor: &Actor, account: Uuid) -> Result<(), Denied> {
    if actor.principal == Principal::Account(account) { Ok(()) } else { Err(Denied::NotLoggedIn) }
}

fn purpose(account: Uuid) -> String {
    format!("totp/{account}")
}

/// The step near `now` whose code this is.
fn step_of(secret: &[u8], typed: &str, now: i64) -> Option<i64> {
    let typed: String = typed.chars().filter(|c| !c.is_whitespace()).collect();
    let current = now / STEP_S;
    (current - STEPS_OFF..=current + STEPS_OFF).find(|&step| random::is_same(&code(secret, step), &typed))
}

/// RFC 4226 section 5.3, with the step as its counter.
fn code(secret: &[u8], step: i64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    let offset = usize::from(tag[tag.len() - 1] & 0x0f);
    let number = u32::from_be_bytes([tag[offset] & 0x7f, tag[offset + 1], tag[offset + 2], tag[offset + 3]]);
    format!("{:0DIGITS$}", number % 10_u32.pow(DIGITS as u32))
}

/// RFC 4648 section 6; 20 bytes need no padding.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let (mut text, mut bits, mut held) = (String::new(), 0_u32, 0);
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            text.push(char::from(ALPHABET[(bits >> held & 31) as usize]));
        }
        bits &= (1 << held) - 1;
    }
    if held > 0 {
        text.push(char::from(ALPHABET[(bits << (5 - held) & 31) as usize]));
    }
    text
}

fn percent_encoded(byte: u8) -> String {
    match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    }
}

/// Five letters at a time: `abcde-fghij-…`.
fn grouped(code: &str) -> String {
    let groups: Vec<&str> =
        code.as_bytes().chunks(5).filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_rfc_6238() {
        let secret = b"12345678901234567890";
        for (unix_s, expected) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(code(secret, unix_s / STEP_S), expected);
            assert_eq!(step_of(secret, expected, unix_s), Some(unix_s / STEP_S));
            assert_eq!(step_of(secret, expected, unix_s + 2 * STEP_S), None, "two steps later");
        }
        assert_eq!(step_of(secret, "287 082", 59), Some(1), "as phones show it");
    }

    #[test]
    fn secrets_are_written_in_base32() {
        assert_eq!(base32(b"12345678901234567890"), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        assert_eq!(base32(b"foob"), "MZXW6YQ");
    }

    #[test]
    fn recovery_codes_are_shown_in_groups() {
        assert_eq!(grouped("abcdefghjkmnpqrstuvw"), "abcde-fghjk-mnpqr-stuvw");
    }
}
