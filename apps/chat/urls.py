"""Addresses of the pages. The API and the socket have their own."""

from django.urls import path
from django.views.i18n import set_language

from apps.chat.views import ChatPage, Icon, LogInPage, LogOutPage, PageWords

urlpatterns = [
    path("", ChatPage.as_view(), name="chat"),
    path("threads/<str:thread_id>/", ChatPage.as_view(), name="thread"),
    path("accounts/login/", LogInPage.as_view(), name="login"),
    path("accounts/logout/", LogOutPage.as_view(), name="logout"),
    path("favicon.ico", Icon.as_view(), name="icon"),
    path("words/", PageWords.as_view(), name="words"),
    path("language/", set_language, name="set_language"),
]
