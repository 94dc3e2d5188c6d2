//! The dashboard in one process, driven through its router and its operations, with a clock that the tests move.
//!
//! Every scenario runs on SQLite as a test of its own, and on PostgreSQL within one test that starts a cluster for all.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod apps;
mod audit;
#[path = "../support/cluster.rs"]
mod cluster;
mod keys;
mod nodes;
mod oauth;
mod plans;
mod refresh;
mod stage;
mod tenants;
mod usage;

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Mutex;

use cluster::Cluster;
use stage::Stage;

type Scenario = fn(Stage) -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! scenarios {
    ($($module:ident: [$($name:ident),+ $(,)?]),+ $(,)?) => {
        mod sqlite {
            $(mod $module {
                $(#[test]
                fn $name() {
                    $crate::run($crate::Stage::on_sqlite, |stage| Box::pin($crate::$module::$name(stage)));
                })+
            })+
        }

        const SCENARIOS: &[(&str, Scenario)] = &[
            $($((concat!(stringify!($module), "::", stringify!($name)), |stage| Box::pin($module::$name(stage)))),+),+
        ];
    };
}

scenarios! {
    tenants: [
        a_tenant_gets_its_key_pair_when_it_is_approved,
        a_suspended_tenant_gets_no_tokens_and_keeps_its_keys,
        a_tenant_never_loses_its_last_owner,
        a_role_may_do_what_the_table_says_and_nothing_in_another_tenant,
        the_first_operator_is_made_once,
    ],
    apps: [
        domains_are_kept_as_tokens_carry_them,
        an_older_version_overwrites_nothing,
        metadata_is_in_the_regions_database_and_nowhere_else,
        a_deleted_app_gets_no_tokens_and_frees_the_free_plan,
    ],
    plans: [
        an_app_without_a_plan_gets_no_token_and_is_told_why,
        of_many_free_subscriptions_at_once_one_succeeds,
        a_cancelled_plan_runs_to_the_end_of_its_period,
    ],
    oauth: [
        a_token_says_what_the_contract_says,
        a_client_may_authenticate_by_form_or_by_basic,
        every_error_is_one_of_the_specifications,
        an_operator_can_introspect_and_others_cannot,
        the_password_grant_is_for_trusted_clients_only,
        whoever_fails_too_often_has_to_wait,
        the_metadata_names_the_endpoints,
    ],
    refresh: [
        a_refresh_token_is_for_offline_access_and_one_use,
        a_spent_token_used_again_ends_its_family,
        of_many_uses_at_once_one_succeeds,
        a_refresh_token_lives_seven_days,
        a_new_secret_kills_the_old_one_and_its_refresh_tokens,
        a_client_can_give_its_refresh_token_back,
        a_lapsed_plan_does_not_spend_the_token,
    ],
    keys: [
        a_new_key_is_published_before_it_signs_and_the_old_one_verifies_after,
        keys_rotate_on_schedule,
        of_many_rotations_at_once_one_begins,
        a_revoked_key_is_named_and_replaced_at_once,
        a_key_set_is_cacheable_and_limited,
        private_keys_move_to_a_new_master_key,
    ],
    nodes: [
        an_enrolment_secret_lets_in_as_many_as_it_says,
        who_enrols_under_a_name_again_replaces_its_credential,
        a_node_that_is_silent_is_down,
        a_node_is_told_what_is_wrong_with_its_requests,
        a_feed_begins_with_everything_and_goes_on_with_what_changes,
        a_feed_goes_on_where_it_was_left,
        a_feed_ends_with_its_credential,
        a_drain_and_its_end_reach_the_nodes,
        a_heartbeat_says_where_the_node_is_now,
        a_new_plan_reaches_the_nodes_while_older_tokens_live,
    ],
    usage: [
        live_figures_are_those_of_all_nodes_that_are_heard_of,
        a_report_counts_once_however_often_it_arrives,
        a_restarted_node_leaves_nothing_behind,
        the_history_has_a_point_for_every_minute_and_hour,
        the_history_is_in_the_apps_region_and_is_bounded,
        a_report_that_is_wrong_is_refused_and_strange_apps_are_passed_over,
    ],
    audit: [
        every_change_is_in_the_chain,
        a_changed_entry_breaks_the_chain,
        an_event_of_a_region_arrives_once,
    ],
}

fn run(make: impl AsyncFnOnce() -> Stage, scenario: Scenario) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { scenario(make().await).await });
}

/// Scenarios at a time: most of what they do is make keys and hash passwords, each on one core.
const WORKERS: usize = 2;

#[test]
fn postgresql_passes_the_same_scenarios() {
    let Some(cluster) = Cluster::start() else {
        eprintln!("skipped: PostgreSQL's binaries are missing; `make test-deps` installs them");
        return;
    };
    let (left, failed) = (Mutex::new(SCENARIOS.iter()), Mutex::new(Vec::new()));
    let next = || left.lock().unwrap().next();
    let work = || {
        while let Some((name, scenario)) = next() {
            let (home, region) = (cluster.new_database(), cluster.new_database());
            let passed = std::panic::catch_unwind(AssertUnwindSafe(|| {
                run(async || Stage::on(&home, &region).await, *scenario);
            }));
            if passed.is_err() {
                failed.lock().unwrap().push(*name);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "on PostgreSQL these failed: {failed:#?}");
}
