//! How much guessing is let through, with the limits as they are when nobody sets them.

use axum::http::StatusCode;
use wiresocket::dashboard::config::HttpSettings;
use wiresocket::dashboard::master::MasterKeys;

use super::stage::{API, PASSWORD, Stage, client_credentials};
use super::web::{Browser, EMAIL};

const TEN_MINUTES_S: i64 = 600;

/// The stage again, without the limits that scenarios set to be done soon.
async fn as_shipped(stage: &Stage) -> Stage {
    let mut config = stage.dashboard.config.clone();
    config.http = HttpSettings::default();
    stage.restarted(config, MasterKeys::ephemeral(&[1])).await
}

fn figure(what: &str, tried: usize, let_through: usize) {
    println!("figure: brute force: {what}: {let_through} of {tried} let through in ten minutes");
}

/// An address that nothing came from yet.
fn address(n: usize) -> String {
    format!("198.51.{}.{}", n / 256, n % 256)
}

pub async fn a_log_in_form_lets_thirty_guesses_through(stage: Stage) {
    const GUESSES: usize = 40;
    let stage = as_shipped(&stage).await;
    stage.account(EMAIL).await;
    let mut browser = Browser::default();
    browser.get(&stage, "/login").await;
    let mut let_through = 0;
    for n in 0..GUESSES {
        let guess = format!("guess {n}");
        let page = browser.post(&stage, "/login", &[("email", EMAIL), ("password", &guess)]).await;
        match page.status {
            StatusCode::UNPROCESSABLE_ENTITY => let_through += 1,
            status => assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "guess {n}"),
        }
    }
    assert_eq!(let_through, HttpSettings::default().failures_per_address as usize);
    let right = browser.post(&stage, "/login", &[("email", EMAIL), ("password", PASSWORD)]).await;
    assert_eq!(right.status, StatusCode::TOO_MANY_REQUESTS, "a guess that is right is told nothing, either");
    figure("the log-in form, one address", GUESSES + 1, let_through);
    stage.clock.advance(TEN_MINUTES_S);
    browser.post(&stage, "/login", &[("email", EMAIL), ("password", PASSWORD)]).await.leads_to("/");
}

pub async fn an_account_lets_a_hundred_guesses_through_and_one_more_an_address(stage: Stage) {
    const ADDRESSES: usize = 50;
    let stage = as_shipped(&stage).await;
    let (_, credentials) = stage.ready().await;
    let http = HttpSettings::default();
    let mut let_through = Vec::new();
    let mut tried = 0;
    for n in 0..ADDRESSES {
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", &credentials.client_id),
            ("client_secret", "a guess"),
            ("scope", API),
        ];
        let (mut of_this, mut refused) = (0, 0);
        // The clock stands: who was refused three times is refused for good.
        while refused < 3 {
            let answer = stage.post_from(&address(n), "/connect/token", &fields, None).await;
            match answer.error() {
                "invalid_client" => of_this += 1,
                _ => {
                    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", answer.json);
                    refused += 1;
                }
            }
            tried += 1;
        }
        let_through.push(of_this);
    }
    assert_eq!(let_through[0], http.failures_per_address);
    figure("a client secret, one address", let_through[0] as usize + 3, let_through[0] as usize);
    // The first addresses get all of theirs until the account has had its hundred; then each new one gets one.
    let all = let_through.iter().sum::<u32>();
    let first = http.failures_per_account.div_ceil(http.failures_per_address);
    assert_eq!(all, http.failures_per_account + ADDRESSES as u32 - first);
    figure(&format!("a client secret, {ADDRESSES} addresses"), tried, all as usize);
    // Its owner, elsewhere, is not locked out.
    let fields = client_credentials(&credentials, API);
    let owner = stage.post_from("203.0.113.5", "/connect/token", &fields, None).await;
    assert_eq!(owner.status, StatusCode::OK, "{}", owner.json);
}

pub async fn the_api_and_refresh_tokens_let_thirty_guesses_through(stage: Stage) {
    const GUESSES: usize = 100;
    let stage = as_shipped(&stage).await;
    let (_, credentials) = stage.ready().await;
    let most = HttpSettings::default().failures_per_address as usize;
    let mut let_through = 0;
    for n in 0..GUESSES {
        let answer =
            stage.call("GET", "/me").by(&format!("wsk_guess{n:036}")).from("198.51.100.1").send().await;
        match answer.status {
            StatusCode::UNAUTHORIZED => let_through += 1,
            status => assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "guess {n}"),
        }
    }
    assert_eq!(let_through, most);
    figure("an API key, one address", GUESSES, let_through);
    let_through = 0;
    for n in 0..GUESSES {
        let guess = format!("wsr_home_guess{n}");
        let fields = [
            ("grant_type", "refresh_token"),
            ("client_id", &credentials.client_id),
            ("refresh_token", &guess),
        ];
        let answer = stage.post_from("198.51.100.2", "/connect/token", &fields, None).await;
        match answer.error() {
            "invalid_grant" => let_through += 1,
            _ => assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "guess {n}: {}", answer.json),
        }
    }
    assert_eq!(let_through, most);
    figure("a refresh token, one address", GUESSES, let_through);
}
