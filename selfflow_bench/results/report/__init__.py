"""The report: one page of HTML with everything the records say. Content as plain data, then drawings, media, page.

Arrows: `files` -> `page` -> `content` -> `sections` -> `overview`, `curves`. Only `drawing` knows matplotlib and only
`embedding` Pillow; both import them when something is drawn.
"""
