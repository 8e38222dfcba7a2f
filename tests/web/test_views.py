from modules.core.job import Job
from modules.core.result import SavedImage
from modules.core.task import Task
from modules.web.views import Addresses, job_view, row_view

IMAGES = tuple(SavedImage(f"/outputs/{i}.png", "picture", 8, 8, 5, "a cat", i) for i in range(2))


def test_pictures_that_are_not_to_be_shown_are_only_counted_on_the_page():
    unseen, seen = (Job("j", "", "finished", Task("extras", {}, shown=shown), images=IMAGES) for shown in (False, True))
    assert (job_view(unseen)["images"], job_view(unseen)["saved"]) == ([], 2)
    assert row_view(unseen)["images"] == [] and len(job_view(seen)["images"]) == 2
    assert len(job_view(unseen, Addresses("darkroom/v1/jobs", "images"))["images"]) == 2
