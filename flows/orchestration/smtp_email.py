"""Mail through an SMTP server, as a notification block of Prefect, which has none of its own.

    SmtpEmail(url="mailtos://me:secret@example.com?to=team").save("vigorl-email")

The server loads it by the entry point `prefect.collections`.
"""

from __future__ import annotations

from prefect.blocks.notifications import AppriseNotificationBlock


class SmtpEmail(AppriseNotificationBlock):
    """Mail by an address as Apprise has it: mailtos://USER:PASSWORD@HOST?to=ADDRESS."""

    _block_type_name = "E-mail by SMTP"
    _block_type_slug = "vigorl-smtp-email"
