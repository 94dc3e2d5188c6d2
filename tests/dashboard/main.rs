//! The dashboard in one process, driven through its router and its operations, with a clock that the tests move.
//!
//! Every scenario runs on SQLite as a test of its own, and on PostgreSQL within one test that starts a cluster for all.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod api;
mod api_billing;
mod api_session;
mod apps;
mod audit;
mod billing;
mod billing_webhooks;
mod books;
mod brute_force;
#[path = "../support/cluster.rs"]
mod cluster;
mod invitations;
mod keys;
mod matrix;
mod nodes;
mod oauth;
mod plans;
mod refresh;
mod stage;
mod tenants;
mod usage;
mod web;
mod web_billing;
mod web_pages;
mod web_wrong;

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
        an_app_that_was_changed_meanwhile_is_not_deleted,
        a_deleted_app_keeps_no_plan_that_was_picked_meanwhile,
    ],
    plans: [
        an_app_without_a_plan_gets_no_token_and_is_told_why,
        of_many_free_subscriptions_at_once_one_succeeds,
        a_cancelled_plan_runs_to_the_end_of_its_period,
    ],
    billing: [
        a_plans_new_terms_are_for_those_who_come_later,
        a_plans_terms_are_checked,
        from_free_to_paid_is_charged_in_full_at_once,
        a_preview_is_what_then_happens,
        a_change_of_cadence_begins_a_new_period,
        a_quote_goes_stale,
        a_credit_is_carried_over_until_it_is_used,
        an_unpaid_plan_earns_no_credit,
        an_overdue_invoice_takes_the_tokens_away_and_payment_brings_them_back,
        who_never_pays_is_not_renewed,
        a_cancellation_can_be_taken_back_until_the_period_ends,
        a_deleted_apps_rest_is_credited,
        two_dashboards_renew_once,
        a_suspension_is_not_billed,
        of_many_changes_to_the_free_plan_one_succeeds,
        who_may_see_and_who_may_pick,
        who_tells_nodes_learns_of_new_limits,
    ],
    books: [the_books_add_up_over_a_random_history],
    billing_webhooks: [
        a_checkout_is_paid_once_however_often_it_is_told,
        only_the_provider_is_believed,
        a_secret_is_changed_without_a_gap,
        a_payment_that_fails_makes_the_invoice_overdue,
        refunds_and_odd_amounts_are_booked,
        what_can_not_be_acted_on_is_named,
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
        a_token_that_allows_less_stays_so,
        a_lapsed_plan_does_not_spend_the_token,
    ],
    brute_force: [
        a_log_in_form_lets_thirty_guesses_through,
        an_account_lets_a_hundred_guesses_through_and_one_more_an_address,
        the_api_and_refresh_tokens_let_thirty_guesses_through,
    ],
    keys: [
        a_new_key_is_published_before_it_signs_and_the_old_one_verifies_after,
        keys_rotate_on_schedule,
        of_many_rotations_at_once_one_begins,
        a_revoked_key_is_named_and_replaced_at_once,
        a_key_set_is_cacheable_and_limited,
        private_keys_move_to_a_new_master_key,
        second_factors_move_to_a_new_master_key,
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
    matrix: [
        every_route_answers_each_role_as_the_table_says_and_is_in_the_audit_log,
    ],
    api: [
        a_key_has_its_makers_rights_of_now_and_no_more,
        a_key_ends_with_its_time_with_its_maker_key_and_when_it_is_revoked,
        an_edit_needs_the_etag_that_was_read,
        of_two_edits_at_once_one_succeeds,
        a_wrong_request_is_told_what_is_wrong,
        a_list_comes_in_pages,
        a_request_with_a_key_takes_effect_once,
        of_many_requests_with_one_key_at_once_one_takes_effect,
        requests_are_counted_by_address_and_by_key,
        the_audit_log_can_be_searched_and_exported,
        the_document_holds_together,
    ],
    api_billing: [
        what_a_preview_shows_is_what_a_pick_with_its_quote_does,
        a_subscription_is_cancelled_taken_back_and_ended,
        an_invoice_is_paid_or_written_off_once,
        a_plans_new_terms_need_its_etag,
        usage_is_told_with_its_limits_and_its_history,
    ],
    api_session: [
        a_page_of_ours_may_what_its_reader_may,
        a_change_needs_our_origin_and_the_forms_token,
        reading_needs_no_token_and_is_for_our_pages_alone,
        a_session_that_is_not_whole_is_nobodys,
    ],
    invitations: [
        who_has_an_account_joins_with_it,
        who_has_none_makes_one,
        a_link_is_good_once_and_for_seven_days,
        an_invitation_is_as_good_as_its_inviter,
        if_the_mail_fails_nobody_is_invited,
    ],
    audit: [
        every_change_is_in_the_chain,
        a_changed_entry_breaks_the_chain,
        an_event_of_a_region_arrives_once,
    ],
    web: [
        who_signs_up_makes_an_app_once_approved,
        a_form_counts_with_its_own_token_and_origin_only,
        a_session_ends_when_it_is_idle_and_when_its_owner_says_so,
        a_second_factor_is_asked_for_and_each_code_counts_once,
        another_tenants_pages_do_not_exist,
    ],
    web_pages: [
        usage_is_shown_against_the_limits_and_gaps_stay_gaps,
        a_page_that_lies_open_keeps_no_session_alive,
        who_is_invited_looks_and_joins,
        who_has_an_account_joins_and_logs_in,
        an_invitation_is_withdrawn_and_codes_can_not_be_guessed,
        an_api_key_is_shown_once_and_ends_when_it_is_revoked,
        new_recovery_codes_take_the_place_of_the_old,
        the_audit_log_is_exported_as_the_api_does,
        an_operator_sees_where_nodes_are_and_whose_tenants_are,
    ],
    web_billing: [
        what_a_plan_costs_is_shown_and_then_charged,
        the_first_free_plan_is_taken_at_once_and_the_second_is_refused_by_name,
        a_price_that_no_longer_holds_is_shown_again,
        a_change_to_the_free_plan_is_credited,
        a_cancellation_can_be_taken_back,
        who_pays_late_is_told_until_when,
        each_role_sees_of_the_money_what_is_its_own,
        an_operator_settles_invoices,
        an_operator_keeps_the_catalogue,
        a_checkout_is_linked_where_there_is_one,
        invoices_come_in_pages,
        a_smaller_plan_says_what_is_in_use,
    ],
    web_wrong: [
        what_cannot_be_read_gets_a_page_that_says_so,
        many_wrong_passwords_at_once_are_no_more_tries_than_one_by_one,
        a_zero_byte_is_an_answer_like_any_other_nonsense,
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
