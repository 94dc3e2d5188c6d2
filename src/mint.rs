//! `wiresocket token`: tokens and key pairs for operators, scripts and tests.
//!
//! Two commands take a production node from nothing to its first token:
//!
//! ```text
//! wiresocket token --generate-key keys --tenant 0e6b…        # keys/0e6b….pem (private), keys/0e6b….json (JWKS)
//! wiresocket token --key keys/0e6b….pem                      # prints a token
//! ```
//!
//! Claims come from three places: what `--claims` says, over that the options, and below both the defaults. With `--raw`
//! the claims are signed exactly as written, whether they make sense or not. Deliberately absent: any check that a node
//! would take the token.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::auth::keys::{JwksError, KEY_ID_BYTES_MAX, parse_jwks};
use crate::auth::sign::SigningKeyError;
use crate::auth::{DocumentPattern, SigningKey};
use crate::secret_file;

/// The issuer of a token that names none.
pub const DEFAULT_ISSUER: &str = "https://wiresocket.local";
/// The app of a token that names none.
pub const DEFAULT_APP: Uuid = Uuid::from_u128(1);
/// How long a token lives if nothing is said, in seconds: what the dashboard gives its tokens.
pub const DEFAULT_TTL_S: u64 = 900;

const API: &str = "WireSocket.API";

/// The scope of a token that changes nothing.
const READ_ONLY: &str = "WireSocket.ReadOnly";
/// The longest life of a token made here, in seconds: ten years.
const TTL_S_MAX: u64 = 10 * 365 * 86_400;

/// Make an access token, or the key pair to make them with
#[allow(rustdoc::bare_urls)] // these comments are the text of --help
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Args {
    /// Private RSA key that signs the token: PEM, PKCS#8 or PKCS#1
    #[arg(long, value_name = "PEM", required_unless_present = "generate_key")]
    pub key: Option<PathBuf>,

    /// Key id in the token's header [default: the key's RFC 7638 thumbprint]
    #[arg(long)]
    pub kid: Option<String>,

    /// Claims: a JSON object, a file that holds one, or - for standard input; a null leaves that claim out
    #[arg(long, value_name = "JSON|FILE|-")]
    pub claims: Option<String>,

    /// Sign the claims exactly as written: no defaults, no options, not even checked to be JSON
    #[arg(long, requires = "claims")]
    pub raw: bool,

    /// tenantid [default: the name of the key file, if that is a GUID]
    #[arg(long, value_name = "GUID", conflicts_with = "raw")]
    pub tenant: Option<Uuid>,

    /// appId [default: 00000000-0000-0000-0000-000000000001]
    #[arg(long, value_name = "GUID", conflicts_with = "raw")]
    pub app: Option<Uuid>,

    /// iss, as the node's configuration has it [default: https://wiresocket.local]
    #[arg(long, value_name = "URL", conflicts_with = "raw")]
    pub issuer: Option<String>,

    /// sub, the app's client_id [default: wiresocket-token]
    #[arg(long, value_name = "ID", conflicts_with = "raw")]
    pub client_id: Option<String>,

    /// Lifetime: seconds, or with a unit (90s, 15m, 12h, 7d) [default: 15m]
    #[arg(long, value_name = "TIME", value_parser = parse_ttl, conflicts_with = "raw")]
    pub ttl: Option<u64>,

    /// licenseRegionCode [default: aws-us-east-1]
    #[arg(long, value_name = "CODE", conflicts_with = "raw")]
    pub region: Option<String>,

    /// dbCode [default: shard-01-us-east-1]
    #[arg(long, value_name = "CODE", conflicts_with = "raw")]
    pub db_code: Option<String>,

    /// A host, or host:port, whose pages may use the token; up to three times [default: any]
    #[arg(long = "allow-domain", value_name = "HOST", conflicts_with = "raw")]
    pub allowed_domains: Vec<String>,

    /// A token that changes nothing: scope has WireSocket.ReadOnly too
    #[arg(long, conflicts_with = "raw")]
    pub read_only: bool,

    /// documents: a name, or a prefix and *, that the token opens; any number of times [default: every document]
    #[arg(long = "document", value_name = "NAME", conflicts_with = "raw")]
    pub documents: Vec<DocumentPattern>,

    /// limits.maxConnections [default: 100]
    #[arg(long, value_name = "N", conflicts_with = "raw", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: Option<u32>,

    /// limits.maxDocuments [default: 100]
    #[arg(long, value_name = "N", conflicts_with = "raw", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_documents: Option<u32>,

    /// limits.maxUsersPerDoc [default: 100]
    #[arg(long, value_name = "N", conflicts_with = "raw", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_users_per_doc: Option<u32>,

    /// limits.opsPerMinute [default: 60000]
    #[arg(long, value_name = "N", conflicts_with = "raw", value_parser = clap::value_parser!(u32).range(1..))]
    pub ops_per_minute: Option<u32>,

    /// Instead of a token, make an RSA-2048 key: DIR/TENANT.pem (private) and DIR/TENANT.json (JWKS for the node)
    #[arg(long, value_name = "DIR", requires = "tenant", conflicts_with_all = ["key", "claims", "raw"])]
    pub generate_key: Option<PathBuf>,
}

/// Why there is no token or key.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    #[error("say which key signs: --key PEM (or make one with --generate-key DIR --tenant GUID)")]
    NoKey,
    #[error("could not read {what} from {}: {source}", path.display())]
    Read { what: &'static str, path: PathBuf, source: io::Error },
    #[error("could not write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "{} exists already; move it away to make a second key (the key set then holds both), or choose another directory",
        path.display()
    )]
    KeyExists { path: PathBuf },
    #[error("the key in {}: {source}", path.display())]
    Key { path: PathBuf, source: SigningKeyError },
    #[error("could not make a key: {0}")]
    Generate(#[source] SigningKeyError),
    #[error("could not sign the token: {0}")]
    Sign(#[source] SigningKeyError),
    #[error("the claims are not a JSON object: {0}; sign them as they are with --raw")]
    Claims(String),
    #[error("the claim {0} is of a form that no option or default can be put into; use --raw")]
    ClaimForm(&'static str),
    #[error("no tenant: say --tenant GUID, or put tenantid into the claims")]
    NoTenant,
    #[error("a token carries at most three allowed domains, not {0}")]
    TooManyDomains(usize),
    #[error("a key id has 1 to {KEY_ID_BYTES_MAX} bytes, not {0}")]
    KeyId(usize),
    #[error("the key set in {} can't take another key: {source}", path.display())]
    Jwks { path: PathBuf, source: JwksError },
}

/// Carries the command out; what it returns belongs on standard output.
///
/// # Errors
/// [`MintError`] says what was attempted and what to do.
pub fn run(args: &Args) -> Result<String, MintError> {
    if let Some(key_id) = &args.kid
        && !(1..=KEY_ID_BYTES_MAX).contains(&key_id.len())
    {
        return Err(MintError::KeyId(key_id.len()));
    }
    if let Some(directory) = &args.generate_key {
        let tenant = args.tenant.ok_or(MintError::NoTenant)?;
        return generate_key(directory, tenant, args.kid.as_deref());
    }
    let path = args.key.as_deref().ok_or(MintError::NoKey)?;
    let pem = secret_file::read(path).map_err(|source| MintError::Read {
        what: "the private key",
        path: path.into(),
        source,
    })?;
    let key = SigningKey::from_pem(&pem).map_err(|source| MintError::Key { path: path.into(), source })?;
    let key_id = args.kid.clone().unwrap_or_else(|| key.thumbprint());
    let written = args.claims.as_deref().map(read_claims).transpose()?;
    if args.raw {
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": key_id }).to_string();
        let payload = written.unwrap_or_default();
        return key.sign_raw(header.as_bytes(), &payload).map_err(MintError::Sign);
    }
    let claims = match written {
        None => Map::new(),
        Some(text) => match serde_json::from_slice(&text) {
            Ok(Value::Object(claims)) => claims,
            Ok(other) => return Err(MintError::Claims(other.to_string())),
            Err(error) => return Err(MintError::Claims(error.to_string())),
        },
    };
    let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let claims = fill_claims(args, claims, tenant_of_file(path), unix_s, Uuid::new_v4())?;
    key.sign(&key_id, &Value::Object(claims)).map_err(MintError::Sign)
}

/// JSON as it stands on the command line, or the content of a file or of standard input.
fn read_claims(source: &str) -> Result<Vec<u8>, MintError> {
    let read = |path: &str, result: io::Result<Vec<u8>>| {
        result.map_err(|source| MintError::Read { what: "the claims", path: path.into(), source })
    };
    if source == "-" {
        let mut text = Vec::new();
        let result = io::stdin().read_to_end(&mut text).map(|_| text);
        read("standard input", result)
    } else if source.trim_start().starts_with(['{', '[', '"']) {
        Ok(source.as_bytes().to_vec())
    } else {
        read(source, fs::read(source))
    }
}

/// `--generate-key` names a tenant's key file after the tenant.
fn tenant_of_file(path: &Path) -> Option<Uuid> {
    Uuid::try_parse(path.file_stem()?.to_str()?).ok()
}

/// The claims with options in place of what they say, defaults in place of what they don't, and without nulls.
fn fill_claims(
    args: &Args,
    mut claims: Map<String, Value>,
    file_tenant: Option<Uuid>,
    unix_s: u64,
    token_id: Uuid,
) -> Result<Map<String, Value>, MintError> {
    let text = |option: &Option<String>| option.clone().map(Value::from);
    let guid = |option: Option<Uuid>| option.map(|guid| Value::from(guid.to_string()));
    let issued = claims.get("iat").and_then(Value::as_u64).unwrap_or(unix_s);
    let expiry = |ttl_s: u64| Value::from(issued.saturating_add(ttl_s));

    let tenant = guid(args.tenant).or_else(|| guid(file_tenant).filter(|_| !claims.contains_key("tenantid")));
    put(&mut claims, "tenantid", tenant, None);
    if !claims.contains_key("tenantid") {
        return Err(MintError::NoTenant);
    }
    put(&mut claims, "appId", guid(args.app), guid(Some(DEFAULT_APP)));
    put(&mut claims, "iss", text(&args.issuer), Some(DEFAULT_ISSUER.into()));
    put(&mut claims, "sub", text(&args.client_id), Some("wiresocket-token".into()));
    put(&mut claims, "licenseRegionCode", text(&args.region), Some("aws-us-east-1".into()));
    put(&mut claims, "dbCode", text(&args.db_code), Some("shard-01-us-east-1".into()));
    put(&mut claims, "aud", None, Some(API.into()));
    let scope = (!claims.contains_key("scp")).then(|| API.into());
    put(&mut claims, "scope", args.read_only.then(|| format!("{API} {READ_ONLY}").into()), scope);
    let documents: Vec<_> = args.documents.iter().map(ToString::to_string).collect();
    put(&mut claims, "documents", (!documents.is_empty()).then(|| documents.into()), None);
    put(&mut claims, "iat", None, Some(issued.into()));
    put(&mut claims, "exp", args.ttl.map(expiry), Some(expiry(DEFAULT_TTL_S)));
    put(&mut claims, "jti", None, Some(token_id.to_string().into()));
    put_domains(args, &mut claims)?;
    put_limits(args, &mut claims)?;
    claims.retain(|_, value| !value.is_null());
    Ok(claims)
}

/// An option replaces what is written; a default only stands where nothing is, not even a null.
fn put(claims: &mut Map<String, Value>, name: &str, option: Option<Value>, default: Option<Value>) {
    if let Some(value) = option {
        claims.insert(name.to_owned(), value);
    } else if let Some(value) = default {
        claims.entry(name).or_insert(value);
    }
}

fn put_domains(args: &Args, claims: &mut Map<String, Value>) -> Result<(), MintError> {
    let names = ["allowed_domain_1", "allowed_domain_2", "allowed_domain_3"];
    match args.allowed_domains.len() {
        0 => return Ok(()),
        count if count > names.len() => return Err(MintError::TooManyDomains(count)),
        _ => names.iter().for_each(|name| drop(claims.remove(*name))),
    }
    for (name, domain) in names.into_iter().zip(&args.allowed_domains) {
        claims.insert(name.to_owned(), domain.to_ascii_lowercase().into());
    }
    Ok(())
}

fn put_limits(args: &Args, claims: &mut Map<String, Value>) -> Result<(), MintError> {
    let limits = match claims.entry("limits").or_insert_with(|| json!({})) {
        Value::Object(limits) => limits,
        Value::Null => return Ok(()),
        _ => return Err(MintError::ClaimForm("limits")),
    };
    for (name, option, default) in [
        ("maxConnections", args.max_connections, 100),
        ("maxDocuments", args.max_documents, 100),
        ("maxUsersPerDoc", args.max_users_per_doc, 100),
        ("opsPerMinute", args.ops_per_minute, 60_000),
    ] {
        put(limits, name, option.map(Value::from), Some(Value::from(default)));
    }
    limits.retain(|_, value| !value.is_null());
    Ok(())
}

/// Seconds, or a number with one of the units s, m, h and d.
fn parse_ttl(text: &str) -> Result<u64, String> {
    let (digits, unit_s) = match text.char_indices().next_back() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        Some((at, 'd')) => (&text[..at], 86_400),
        _ => (text, 1),
    };
    let seconds = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_s));
    match seconds {
        Some(seconds) if (1..=TTL_S_MAX).contains(&seconds) => Ok(seconds),
        _ => Err("use a number of seconds, or one with a unit such as 90s, 15m, 12h or 7d, up to ten years"
            .to_owned()),
    }
}

/// Writes the private key for the operator alone, and the public one into the tenant's key set, beside what is in it.
fn generate_key(directory: &Path, tenant: Uuid, key_id: Option<&str>) -> Result<String, MintError> {
    let write_error = |path: &Path| {
        let path = path.to_owned();
        move |source| MintError::Write { path, source }
    };
    fs::create_dir_all(directory).map_err(write_error(directory))?;
    let pem_path = directory.join(format!("{tenant}.pem"));
    let jwks_path = directory.join(format!("{tenant}.json"));
    if pem_path.exists() {
        return Err(MintError::KeyExists { path: pem_path });
    }
    let key = SigningKey::generate().map_err(MintError::Generate)?;
    let key_id = key_id.map_or_else(|| key.thumbprint(), ToOwned::to_owned);
    let jwks = extended_jwks(&jwks_path, key.public_jwk(&key_id))?;
    let pem = key.to_pkcs8_pem().map_err(MintError::Generate)?;

    // A node may be reading the directory: it must never see half a key set, nor one whose private key was not kept.
    let partial = directory.join(format!(".{tenant}.json.partial"));
    fs::write(&partial, jwks).map_err(write_error(&partial))?;
    // `create_new`: a private key is never written into a file, or through a link, that somebody else made.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&pem_path);
    let written = file.and_then(|mut file| file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => MintError::KeyExists { path: pem_path.clone() },
        _ => MintError::Write { path: pem_path.clone(), source },
    })?;
    fs::rename(&partial, &jwks_path).map_err(write_error(&jwks_path))?;
    Ok(format!(
        "private key: {} (keep it secret)\nkey set:     {} (for the node's key directory)\nkey id:      {key_id}\n\
         a token:     wiresocket token --issuer <auth.issuer> --key {}",
        pem_path.display(),
        jwks_path.display(),
        pem_path.display(),
    ))
}

/// The key set at `path`, if there is one, with one more key.
fn extended_jwks(path: &Path, jwk: Value) -> Result<String, MintError> {
    let refused = |source| MintError::Jwks { path: path.into(), source };
    let mut set = match fs::read(path) {
        Ok(bytes) => {
            parse_jwks(&bytes).map_err(refused)?;
            serde_json::from_slice(&bytes).map_err(|error| refused(JwksError::Json(error)))?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => json!({ "keys": [] }),
        Err(source) => return Err(MintError::Read { what: "the key set", path: path.into(), source }),
    };
    if let Some(keys) = set["keys"].as_array_mut() {
        keys.insert(0, jwk);
    }
    let text = format!("{set:#}\n");
    parse_jwks(text.as_bytes()).map_err(refused)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use clap::Parser;

    use super::*;
    use crate::auth::{Grant, KeySets, Policy, TokenError, Verifier};

    const TENANT: Uuid = Uuid::from_u128(0x11111111_2222_4333_8444_555555555555);

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn command(line: &[&str]) -> Result<Args, String> {
        let line = std::iter::once("token").chain(line.iter().copied());
        Command::try_parse_from(line).map(|command| command.args).map_err(|error| error.to_string())
    }

    fn filled(line: &[&str], claims: Value) -> Result<Value, MintError> {
        let args = command(&[&["--key", "x"], line].concat()).unwrap();
        let Value::Object(claims) = claims else { panic!("claims are an object") };
        fill_claims(&args, claims, Some(TENANT), 1_000, Uuid::nil()).map(Value::Object)
    }

    /// A key directory as an operator makes it: its path, and the path of the private key.
    fn key_directory() -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        run(&command(&["--generate-key", path, "--tenant", &TENANT.to_string()]).unwrap()).unwrap();
        let pem = directory.path().join(format!("{TENANT}.pem"));
        (directory, pem.to_str().unwrap().to_owned())
    }

    /// What a node with this key directory says to a token.
    fn at_a_node(directory: &Path, token: &str) -> Result<Arc<Grant>, TokenError> {
        let keys = parse_jwks(&fs::read(directory.join(format!("{TENANT}.json"))).unwrap()).unwrap();
        let policy = Policy { issuer: DEFAULT_ISSUER.to_owned(), leeway_s: 0, token_bytes_max: 8192 };
        let sets = Arc::new(KeySets::default().with_tenant(TENANT, keys));
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        Verifier::new(policy, sets, 0, 0).verify(unix_s, token)
    }

    #[test]
    fn two_commands_make_a_key_directory_and_a_token_that_a_node_takes() {
        let (directory, pem) = key_directory();
        assert_eq!(fs::metadata(&pem).unwrap().permissions().mode() & 0o777, 0o600);
        let token = run(&command(&["--key", &pem]).unwrap()).unwrap();
        let grant = at_a_node(directory.path(), &token).unwrap();
        assert_eq!((grant.app.tenant, grant.app.app), (TENANT, DEFAULT_APP));
        assert_eq!(grant.limits.connections_max, 100);
        let mut names: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [format!("{TENANT}.json").as_str(), format!("{TENANT}.pem").as_str()]);
    }

    #[test]
    fn a_second_key_joins_the_set_and_the_first_is_never_overwritten() {
        let (directory, pem) = key_directory();
        let again =
            command(&["--generate-key", directory.path().to_str().unwrap(), "--tenant", &TENANT.to_string()]);
        let again = again.unwrap();
        assert!(matches!(run(&again), Err(MintError::KeyExists { .. })));
        let old = format!("{pem}.old");
        fs::rename(&pem, &old).unwrap();
        run(&again).unwrap();
        let tenant = TENANT.to_string();
        for key in [&old, &pem] {
            let token = run(&command(&["--key", key, "--tenant", &tenant]).unwrap()).unwrap();
            assert!(at_a_node(directory.path(), &token).is_ok(), "{key}");
        }
    }

    #[test]
    fn raw_claims_are_signed_as_written() {
        let (directory, pem) = key_directory();
        let payload = format!(r#"{{"tenantid":"{TENANT}","exp":1,"exp":2}}"#);
        let token = run(&command(&["--key", &pem, "--raw", "--claims", &payload]).unwrap()).unwrap();
        assert_eq!(at_a_node(directory.path(), &token), Err(TokenError::DuplicateClaim));
        let file = directory.path().join("claims.txt");
        fs::write(&file, "no json").unwrap();
        let args = ["--key", &pem, "--raw", "--claims", file.to_str().unwrap()];
        let token = run(&command(&args).unwrap()).unwrap();
        assert_eq!(at_a_node(directory.path(), &token), Err(TokenError::Claims));
        let not_raw = command(&["--key", &pem, "--claims", file.to_str().unwrap()]).unwrap();
        assert!(matches!(run(&not_raw), Err(MintError::Claims(_))));
    }

    #[test]
    fn options_win_over_claims_and_claims_over_defaults() {
        let claims = json!({
            "iss": "https://a.example", "sub": "me", "scp": ["WireSocket.API"], "iat": 500, "extra": [1],
            "allowed_domain_2": "old.example", "limits": { "maxDocuments": 7, "opsPerMinute": null },
        });
        let line = [
            "--issuer",
            "https://b.example",
            "--ttl",
            "2m",
            "--allow-domain",
            "New.example",
            "--max-connections",
            "3",
        ];
        let expected = json!({
            "iss": "https://b.example", "sub": "me", "scp": ["WireSocket.API"], "iat": 500, "exp": 620,
            "extra": [1], "allowed_domain_1": "new.example", "aud": "WireSocket.API",
            "tenantid": TENANT.to_string(), "appId": DEFAULT_APP.to_string(), "jti": Uuid::nil().to_string(),
            "licenseRegionCode": "aws-us-east-1", "dbCode": "shard-01-us-east-1",
            "limits": { "maxConnections": 3, "maxDocuments": 7, "maxUsersPerDoc": 100 },
        });
        assert_eq!(filled(&line, claims).unwrap(), expected);
    }

    #[test]
    fn a_token_may_be_made_to_allow_less() {
        let less =
            filled(&["--read-only", "--document", "notes", "--document", "minutes-*"], json!({})).unwrap();
        assert_eq!(less["scope"], "WireSocket.API WireSocket.ReadOnly");
        assert_eq!(less["documents"], json!(["notes", "minutes-*"]));
        assert!(filled(&[], json!({})).unwrap().get("documents").is_none());
        assert!(command(&["--key", "k", "--document", "no such name"]).is_err());
    }

    #[test]
    fn a_null_leaves_a_claim_out() {
        let filled = filled(&[], json!({ "exp": null, "limits": null, "tenantid": null })).unwrap();
        for name in ["exp", "limits", "tenantid"] {
            assert!(filled.get(name).is_none(), "{name}");
        }
        assert_eq!(filled["scope"], "WireSocket.API");
    }

    #[test]
    fn the_tenant_is_said_or_written_or_in_the_file_name() {
        let other = Uuid::from_u128(7).to_string();
        assert_eq!(filled(&[], json!({})).unwrap()["tenantid"], TENANT.to_string());
        assert_eq!(filled(&[], json!({ "tenantid": other })).unwrap()["tenantid"], other);
        assert_eq!(filled(&["--tenant", &other], json!({ "tenantid": "x" })).unwrap()["tenantid"], other);
        let nowhere = fill_claims(&Args::default(), Map::new(), None, 0, Uuid::nil());
        assert!(matches!(nowhere, Err(MintError::NoTenant)));
    }

    #[test]
    fn what_can_not_be_filled_is_refused() {
        assert!(matches!(filled(&[], json!({ "limits": "5" })), Err(MintError::ClaimForm("limits"))));
        let domains = ["--allow-domain", "a"].repeat(4);
        assert!(matches!(filled(&domains, json!({})), Err(MintError::TooManyDomains(4))));
    }

    #[test]
    fn lifetimes_have_units_and_bounds() {
        assert_eq!(parse_ttl("900"), Ok(900));
        assert_eq!(parse_ttl("90s"), Ok(90));
        assert_eq!(parse_ttl("15m"), Ok(900));
        assert_eq!(parse_ttl("12h"), Ok(43_200));
        assert_eq!(parse_ttl("7d"), Ok(604_800));
        for wrong in ["", "s", "-1", "0", "1.5h", "1w", "é", "99999999999999999d", "4000d"] {
            assert!(parse_ttl(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_says_what_does_not_go_together() {
        let tenant = TENANT.to_string();
        for line in [
            &[][..],
            &["--key", "k", "--raw"],
            &["--key", "k", "--raw", "--claims", "{}", "--ttl", "5"],
            &["--generate-key", "d"],
            &["--generate-key", "d", "--tenant", "not a guid"],
            &["--generate-key", "d", "--tenant", &tenant, "--key", "k"],
            &["--key", "k", "--max-connections", "0"],
        ] {
            assert!(command(line).is_err(), "{line:?}");
        }
        let no_file = command(&["--key", "there/is/no/such.pem"]).unwrap();
        let error = run(&no_file).unwrap_err().to_string();
        assert!(error.starts_with("could not read the private key from there/is/no/such.pem"), "{error}");
    }
}
