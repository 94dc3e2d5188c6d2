//! Lists in pages. A cursor is opaque: the place after which the next page begins, and of which list.
//!
//! A page is what was there when it was read; what is made or deleted between two pages is in one of them or not, and
//! nothing else is left out or twice.

use axum::Json;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use utoipa::ToSchema;

use super::Problem;

pub(super) const LIMIT_DEFAULT: i64 = 50;
pub(super) const LIMIT_MAX: i64 = 200;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page<T> {
    pub items: Vec<T>,
    /// Send it as `cursor` for the next page; null on the last.
    #[schema(required)]
    pub next: Option<String>,
}

/// What page is asked for.
#[derive(Debug)]
pub(super) struct Paging<'a> {
    list: &'static str,
    uri: &'a Uri,
    limit: i64,
    /// The place after which it begins.
    pub after: Option<String>,
}

impl<'a> Paging<'a> {
    /// # Errors
    /// 400 for a limit out of bounds, or another list's cursor.
    pub fn new(
        list: &'static str,
        uri: &'a Uri,
        limit: Option<i64>,
        cursor: Option<&str>,
    ) -> Result<Self, Problem> {
        let limit = limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Problem::bad_request(format!("limit must be from 1 to {LIMIT_MAX}, not {limit}")));
        }
        let wrong = || Problem::bad_request("cursor must be what `next` of the page before said");
        let after = match cursor {
            None => None,
            Some(cursor) => {
                let text = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|text| String::from_utf8(text).ok());
                let text = text.ok_or_else(wrong)?;
                let (of, place) = text.split_once(' ').ok_or_else(wrong)?;
                Some((of == list).then(|| place.to_owned()).ok_or_else(wrong)?)
            }
        };
        Ok(Self { list, uri, limit, after })
    }

    /// The place as what it is for this list.
    ///
    /// # Errors
    /// 400 if somebody has made the cursor up.
    pub fn after_as<T: std::str::FromStr>(&self) -> Result<Option<T>, Problem> {
        let wrong = |_| Problem::bad_request("cursor must be what `next` of the page before said");
        self.after.as_ref().map(|place| place.parse().map_err(wrong)).transpose()
    }

    /// What to read: one more than is shown tells whether there is a next page.
    pub fn to_read(&self) -> i64 {
        self.limit + 1
    }

    /// Renders what was read from the place on, at most [`Paging::to_read`].
    pub fn render<T: Serialize>(&self, mut items: Vec<T>, place: impl Fn(&T) -> String) -> Response {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let has_next = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| has_next).map(|last| self.cursor(&place(last)));
        let link = next.as_ref().map(|next| self.link(next));
        let mut response =
            ([(header::CACHE_CONTROL, "private, no-cache")], Json(Page { items, next })).into_response();
        if let Some(link) = link.and_then(|link| link.try_into().ok()) {
            response.headers_mut().insert(header::LINK, link);
        }
        response
    }

    /// The same of a list that is short enough to be read as a whole, ordered by its places.
    pub fn render_part<T: Serialize>(&self, all: Vec<T>, place: impl Fn(&T) -> String) -> Response {
        let is_after = |item: &T| self.after.as_ref().is_none_or(|after| place(item) > *after);
        let read = usize::try_from(self.to_read()).unwrap_or(usize::MAX);
        let mut items: Vec<T> = all.into_iter().filter(is_after).collect();
        items.sort_by_key(&place);
        items.truncate(read);
        self.render(items, place)
    }

    fn cursor(&self, place: &str) -> String {
        URL_SAFE_NO_PAD.encode(format!("{} {place}", self.list))
    }

    /// RFC 8288: this request, with another cursor.
    fn link(&self, next: &str) -> String {
        let query = self.uri.query().unwrap_or_default().split('&');
        let kept = query.filter(|part| !part.is_empty() && !part.starts_with("cursor="));
        let query: Vec<_> = kept.map(ToOwned::to_owned).chain([format!("cursor={next}")]).collect();
        format!("<{}?{}>; rel=\"next\"", self.uri.path(), query.join("&"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_of_its_list() {
        let uri: Uri = "/a?limit=2&state=x&cursor=old".parse().unwrap();
        let paging = Paging::new("apps", &uri, Some(2), None).unwrap();
        let cursor = paging.cursor("7 x");
        let next = Paging::new("apps", &uri, None, Some(&cursor)).unwrap();
        assert_eq!(next.after.as_deref(), Some("7 x"));
        assert!(Paging::new("keys", &uri, None, Some(&cursor)).is_err());
        assert!(Paging::new("apps", &uri, None, Some("?")).is_err());
        assert_eq!(paging.link("new"), "</a?limit=2&state=x&cursor=new>; rel=\"next\"");
    }

    #[test]
    fn a_limit_has_bounds() {
        let uri = Uri::from_static("/a");
        assert!(Paging::new("a", &uri, Some(0), None).is_err());
        assert!(Paging::new("a", &uri, Some(LIMIT_MAX + 1), None).is_err());
        assert_eq!(Paging::new("a", &uri, None, None).unwrap().to_read(), LIMIT_DEFAULT + 1);
    }
}
